"""The KV78turbo feed: planning (KV7) and passing times (KV8) of a whole country over ZeroMQ."""
