"""Statistics of connections: recording them, writing the log, and reading it back."""
