"""Console scripts: govi-record and govi-stats."""
