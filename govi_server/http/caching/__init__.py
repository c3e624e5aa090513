"""Reusable responses: representations, conditional requests, cached responses, the memo of requests."""
