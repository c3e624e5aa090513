"""govi-cache serves the next departures of a stop from memory."""
