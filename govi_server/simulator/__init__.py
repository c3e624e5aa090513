"""A simulated GOVI gateway and KV78turbo feed of a fictional town, for demos and tests."""
