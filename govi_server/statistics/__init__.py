"""Statistics: what connections did, the log of it, and reading that log back."""
