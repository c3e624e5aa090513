"""What makes a response reusable: representations, conditional requests, cached responses, the memo of requests."""
