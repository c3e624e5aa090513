"""The domain: boards of departures, and the cache that keeps them. Knows nothing of HTTP."""
