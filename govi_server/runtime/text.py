"""Words of log lines and other texts."""


def pluralize(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural with "s" unless the number is 1: "1 file", "2 files"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
