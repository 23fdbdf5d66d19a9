"""The decoding core."""
