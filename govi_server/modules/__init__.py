"""URL modules, which respond to requests. Each is a service, routed by name (a path segment) or by its endpoint."""
