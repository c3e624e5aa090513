"""Statistics of connections and requests: recording, the log, and reports from logs."""
