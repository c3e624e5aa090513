"""Colours of lines, and which text can be read on them (WCAG 2.2, contrast). Pure."""

import re

READABLE = 4.5
"""The least contrast of text with its ground that WCAG AA allows."""

_HEX = re.compile(r"#?([0-9A-Fa-f]{6})")
_BLACK, _WHITE = "#000000", "#ffffff"


def read_color(text: str | None) -> str | None:
    """Read a colour of KV7 or KV8, six hexadecimal digits, as #rrggbb; None for what is none."""
    found = _HEX.fullmatch(text or "")
    return f"#{found[1].lower()}" if found else None


def contrast(one: str, other: str) -> float:
    """Give the contrast of two colours, #rrggbb, from 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def text_color(ground: str, wanted: str | None = None) -> str:
    """Choose the colour of text on a ground: the one that is wanted if it can be read, else black or white."""
    if wanted is not None and contrast(ground, wanted) >= READABLE:
        return wanted
    return max(_BLACK, _WHITE, key=lambda color: contrast(ground, color))


def _luminance(color: str) -> float:
    parts = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
