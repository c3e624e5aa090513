"""The command ``govi-cache``: serve, check, config, doctor, record and stats."""
