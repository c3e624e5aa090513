"""URL modules: one file for each, a service named after the first segment of its paths."""
