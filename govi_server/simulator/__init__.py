"""A simulated GOVI gateway and KV78turbo feed of a made-up town, for demos and tests."""
