"""govi-cache: a server for the next departures of public transport stops."""
