"""The words of place names: how texts are folded for comparison, and which words mean the same. Pure."""

import re
import unicodedata

_WORD = re.compile(r"\w+")
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "_": " "})  # not decomposed by NFKD

_ABBREVIATIONS = {
    "c s": "cs",
    "n s": "ns",
    "h s": "hs",
    "p r": "pr",
    "a dam": "amsterdam",
    "r dam": "rotterdam",
    "a d": "aan de",
}
"""Abbreviations that consist of several words without their punctuation: C.S., N.S., H.S., P+R, A'dam, R'dam, a/d."""

_ABBREVIATION = re.compile(rf"\b(?:{'|'.join(_ABBREVIATIONS)})\b")

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
    "station": ("cs", "ns", "hs", "hoofdstation"),
    "ns": ("station",),
    "hs": ("hollands", "spoor", "hoofdstation"),
    "hollands": ("hs",),
    "spoor": ("hs",),
    "st": ("sint", "station"),
    "sint": ("st",),
    "de": ("den", "der"),
    "den": ("de", "der"),
    "der": ("de", "den"),
    "pr": ("prins", "transferium"),
    "transferium": ("pr",),
    "adam": ("amsterdam",),
    "asd": ("amsterdam",),
    "rdam": ("rotterdam",),
    "rtd": ("rotterdam",),
    "dh": ("haag",),
    "zkh": ("ziekenhuis",),
    "ziekenhuis": ("zkh",),
    "vliegveld": ("airport", "luchthaven"),
    "luchthaven": ("airport", "vliegveld"),
    "airport": ("luchthaven", "vliegveld"),
}

_SIMILAR = {"cs": ("station", "hoofdstation"), "centraal": ("station", "hoofdstation")}

OPTIONAL_WORDS = frozenset(("station", "ns", "de", "het", "t"))
"""Words of a name that people omit."""

ARTICLES = frozenset(("de", "den", "der", "het", "t", "aan", "van", "op", "in", "bij"))
"""Words that say nothing of a place when no place has all words of a query."""


def folded(text: str) -> str:
    """Return a text for comparison: words of lower-case letters and digits, without accents, separated by spaces."""
    decomposed = unicodedata.normalize("NFKD", text).casefold().translate(_LETTERS)
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(_WORD.findall(plain))


def normalized(text: str) -> str:
    """Return a folded text with abbreviations as one word each."""
    return _ABBREVIATION.sub(lambda match: _ABBREVIATIONS[match[0]], folded(text))


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
