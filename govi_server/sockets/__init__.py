"""Listening and accepting, and what depends on internals of Twisted or the kernel: polling and immediate writes."""
