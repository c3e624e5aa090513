"""URL modules: each a service that is named after the path segment it answers under."""
