"""The domain: departures of stops, their sources and caches, without protocols and HTTP."""
