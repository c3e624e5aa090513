"""Colours of lines, and legible text colours on them (WCAG 2.2, contrast). Pure."""

import re

MIN_CONTRAST = 4.5
"""Minimum contrast of text with its background (WCAG 2.2, level AA)."""

_HEX = re.compile(r"#?([0-9A-Fa-f]{6})")
_BLACK, _WHITE = "#000000", "#ffffff"


def read_color(text: str | None) -> str | None:
    """Parse a colour of KV7 or KV8, six hexadecimal digits, into #rrggbb; return None if it is invalid."""
    match = _HEX.fullmatch(text or "")
    return f"#{match[1].lower()}" if match else None


def contrast(color: str, other: str) -> float:
    """Return the contrast of two colours, #rrggbb, from 1 to 21."""
    darker, lighter = sorted((_luminance(color), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def text_color(background: str, preferred: str | None = None) -> str:
    """Return the text colour for a background: the preferred one if it is legible, else black or white."""
    if preferred is not None and contrast(background, preferred) >= MIN_CONTRAST:
        return preferred
    return max(_BLACK, _WHITE, key=lambda color: contrast(background, color))


def _luminance(color: str) -> float:
    parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
