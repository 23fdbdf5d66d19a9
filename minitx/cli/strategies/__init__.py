"""Commands about decoding strategies: the catalogue, and texts of several side by side."""
