"""Caching of responses: representations, conditional requests, cached responses, the request memo."""
