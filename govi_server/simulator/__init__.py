"""A GOVI gateway over a made-up town, for trying and testing."""
