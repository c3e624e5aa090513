"""Listening, accepting, polling and writing, close to Twisted and the kernel; independent of HTTP."""
