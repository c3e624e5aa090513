"""A simulated GOVI gateway and KV78turbo feed over a fictitious town, for demos and tests."""
