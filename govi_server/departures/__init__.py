"""The domain: departures of stops, their sources and caches, independent of protocols and HTTP."""
