"""Words of log lines and other texts."""


def pluralize(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural with "s" unless the number is 1: "1 file", "2 files"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def nonblank(text: str | None) -> str | None:
    """Return a text, or None if it is blank: without any printable character except spaces."""
    if not text:
        return None
    return text if _is_visible(text[0]) or any(map(_is_visible, text)) else None


def _is_visible(character: str) -> bool:
    # str.isprintable() is False for control and format characters, and for all spaces but U+0020.
    return character.isprintable() and character != " "
