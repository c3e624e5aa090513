"""The console scripts govi-record and govi-stats."""
