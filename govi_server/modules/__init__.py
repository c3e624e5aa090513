"""URL modules: what answers requests. Each a service, found by its name (a path segment) or alone on an endpoint."""
