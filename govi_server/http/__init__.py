"""HTTP/1.1: from bytes to requests, and from responses to bytes."""
