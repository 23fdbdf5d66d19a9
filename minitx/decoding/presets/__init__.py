"""The orders of steps and the default values of other libraries, by name; presets.toml has both tables."""
