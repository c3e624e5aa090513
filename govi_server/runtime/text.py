"""Words of log lines and other texts, and texts from outside as printable text."""

from unicodedata import category

MAX_LINE_CHARACTERS = 2000
"""Characters of a line in a log or on a terminal: no line of this program is longer, only texts from outside."""


def pluralize(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural with "s" unless the number is 1: "1 file", "2 files"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def printable(text: str, limit: int = MAX_LINE_CHARACTERS) -> str:
    r"""Return a text from outside as one line, in which nothing controls a terminal or forges another line.

    Control characters (C0, DEL, C1), line and paragraph separators, direction controls, surrogates and other
    characters that are not printable are escaped, such as ``\x1b``. limit: the maximum number of characters, of
    which the last three are ``...`` in a text that was cut.
    """
    if len(text) <= limit and text.isprintable():
        return text
    escaped = escape_unprintable(text[: limit + 1])
    return escaped if len(escaped) <= limit else f"{escaped[: limit - 3]}..."


def escape_unprintable(text: str, allowed: str = "") -> str:
    """Return a text of any length with characters that are not printable escaped, except those in allowed."""
    if text.isprintable():
        return text
    return "".join(
        character if _is_printable(character) or character in allowed else _escape(character) for character in text
    )


def _is_printable(character: str) -> bool:
    """Return whether a character is printable, or one of the spaces, such as the no-break space."""
    return character.isprintable() or category(character) == "Zs"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def escape_json(document: str) -> str:
    r"""Return a JSON document with characters that are not printable escaped, such as ``\u009b``.

    Encoders of JSON leave DEL, C1 and direction controls unescaped in strings; outside of strings there are none.
    """
    if (document.isascii() and "\x7f" not in document) or document.isprintable():
        return document
    return "".join(
        character if _is_printable(character) or character in "\n\r\t" else _escape_utf16(character)
        for character in document
    )


def _escape_utf16(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def nonblank(text: str | None) -> str | None:
    """Return a text, or None if it is blank: without any printable character except spaces."""
    if not text:
        return None
    return text if _is_visible(text[0]) or any(map(_is_visible, text)) else None


def _is_visible(character: str) -> bool:
    # str.isprintable() is False for control and format characters, and for all spaces but U+0020.
    return character.isprintable() and character != " "
