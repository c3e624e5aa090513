"""The KV78turbo feed: the timetable (KV7) and live passtimes (KV8) of a country, over ZeroMQ."""
