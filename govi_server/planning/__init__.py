"""Planning from a GTFS file of KV7: downloaded, checked, compiled, and looked up without loading it."""
