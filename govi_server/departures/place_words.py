"""The words of place names: how texts are folded for comparison, and which words mean the same. Pure."""

import re
import unicodedata

_WORD = re.compile(r"\w+")
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "_": " "})  # not decomposed by NFKD

_ABBREVIATIONS = re.compile(r"\b(?:(?P<letter>[chn]) s|(?P<a>a) dam|(?P<r>r) dam)\b")
"""Abbreviations that consist of several words without their punctuation: C.S., N.S., A'dam, R'dam."""

_TOWNS = {
    "s gravenhage": "den haag",
    "s hertogenbosch": "den bosch",
    "ljouwert": "leeuwarden",
    "snits": "sneek",
    "it hearrenfean": "heerenveen",
}
_TOWNS |= {other: town for town, other in _TOWNS.items()}

_SYNONYMS = {
    "cs": ("centraal",),
    "centraal": ("cs",),
    "station": ("cs", "ns", "hs"),
    "ns": ("station",),
    "hs": ("hollands", "spoor"),
    "hollands": ("hs",),
    "spoor": ("hs",),
    "st": ("sint", "station"),
    "sint": ("st",),
    "adam": ("amsterdam",),
    "rdam": ("rotterdam",),
    "dh": ("haag",),
    "zkh": ("ziekenhuis",),
    "ziekenhuis": ("zkh",),
    "vliegveld": ("airport", "luchthaven"),
    "luchthaven": ("airport", "vliegveld"),
    "airport": ("luchthaven", "vliegveld"),
}

_SIMILAR = {"cs": ("station",), "centraal": ("station",)}

OPTIONAL_WORDS = frozenset(("station", "ns", "de", "het", "t"))
"""Words of a name that people omit."""


def folded(text: str) -> str:
    """Return a text for comparison: words of lower-case letters and digits, without accents, separated by spaces."""
    decomposed = unicodedata.normalize("NFKD", text).casefold().translate(_LETTERS)
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(_WORD.findall(plain))


def normalized(text: str) -> str:
    """Return a folded text with abbreviations as one word each."""
    return _ABBREVIATIONS.sub(_one_word, folded(text))


def _one_word(match: re.Match[str]) -> str:
    if letter := match["letter"]:
        return f"{letter}s"
    return "amsterdam" if match["a"] else "rotterdam"


def town_forms(town: str) -> tuple[str, ...]:
    """Return the names of a town, normalized: the given one, and the other one if it has two."""
    other = _TOWNS.get(town)
    return (town,) if other is None else (town, other)


def synonyms(word: str) -> tuple[str, ...]:
    """Return other words that mean the same as a normalized word, at least in names of stops."""
    return _SYNONYMS.get(word, ())


def similar_words(word: str) -> tuple[str, ...]:
    """Return words that people may mean by a normalized word, if no place has that: a station that is not central."""
    return _SIMILAR.get(word, ())
