"""Finding stops: by name, town or code, and by where they are. Pure: an Index is made once, bit by bit, and asked."""

import math
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from heapq import merge, nsmallest
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from pyproj import Transformer

from govi_server.departures.display import place
from govi_server.departures.timing_point import TimingPoint

MOST = 20
"""Stops that are found at most: nobody reads more."""

LONGEST = 100
"""Characters of a query that are looked at: twice a TimingPointName."""

MOST_WORDS = 6
"""Words of a query that are looked at."""

FARTHEST = 10_000
"""Metres beyond which no stop is near."""

_BIT = 200
"""Stops between two yields while an index is made: some two milliseconds, a slice of time."""

_CELL = 1000
"""Metres of a side of the squares by which stops are found by where they are."""

_WORD = re.compile(r"\w+")
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "_": " "})  # no accents to take off


def folded(text: str) -> str:
    """Write a text as it is compared: words of small letters and digits, without accents, a space between them."""
    decomposed = unicodedata.normalize("NFKD", text).casefold().translate(_LETTERS)
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(_WORD.findall(plain))


class _Place(NamedTuple):
    """A stop as it is compared: in the order in which equally good ones are told."""

    name: str
    """Without the town, which most names begin with."""
    town: str
    code: str

    @property
    def whole(self) -> str:
        return f"{self.town} {self.name}".strip()


def _place(code: str, point: TimingPoint | None) -> _Place:
    name, town = map(folded, place(point.name, point.town) if point is not None else ("", ""))
    without = name.removeprefix(town).strip() if name.startswith(f"{town} ") else name
    return _Place(without, town, code)


class StopIndex:
    """Stops by the words of their names and towns, and by squares. It does not change.

    make() gives it: points are the stops that are known, codes those of which nothing else is.
    """

    def __init__(self, points: Mapping[str, TimingPoint]) -> None:
        self._points = points
        self._places: list[_Place] = []
        self._of_code: dict[str, int] = {}
        self._codes: list[str] = []
        self._names: dict[str, list[int]] = {}
        self._towns: dict[str, list[int]] = {}
        self._whole: dict[str, list[int]] = {}
        self._cells: dict[tuple[int, int], list[int]] = {}
        self._name_words: list[str] = []
        self._town_words: list[str] = []
        self.find = lru_cache(maxsize=1024)(self._find)  # who types asks the same as others who do
        """Give the codes of the stops that a query means, the best first: an exact code, an exact name, one that has
        the words whole in name or town (first if it begins so), a name that begins so, one with words that begin so,
        one whose town and name have them together."""

    @classmethod
    def make(
        cls, points: Mapping[str, TimingPoint], codes: Iterable[str], made: Callable[["StopIndex"], object]
    ) -> Iterator[None]:
        """Make an index bit by bit, and hand it over."""
        index = cls(dict(points))  # as they are now
        index._codes = yield from _ordered([*{**points, **dict.fromkeys(codes)}])
        places = yield from _each(lambda code: _place(code, index._points.get(code)), index._codes)
        index._places = yield from _ordered(places)
        yield from _each(index._add, range(len(places)))
        index._name_words = yield from _ordered([*index._names])
        index._town_words = yield from _ordered([*index._towns])
        made(index)

    def _add(self, at: int) -> None:
        place = self._places[at]
        self._of_code[place.code] = at
        for words, table in ((place.name, self._names), (place.town, self._towns)):
            for word in set(words.split()):
                table.setdefault(word, []).append(at)
        for whole in {place.name, place.whole} - {""}:
            self._whole.setdefault(whole, []).append(at)
        point = self._points.get(place.code)
        if point is not None and point.is_placed:
            self._cells.setdefault((point.x // _CELL, point.y // _CELL), []).append(at)

    def __len__(self) -> int:
        return len(self._places)

    def _find(self, query: str) -> tuple[str, ...]:
        text = folded(query[:LONGEST])
        words = text.split()[:MOST_WORDS]
        found: dict[int, None] = {}
        for some in self._ranked(text, words) if words else ():
            found.update(dict.fromkeys(islice((at for at in some if at not in found), MOST - len(found))))
            if len(found) == MOST:
                break
        return tuple(self._places[at].code for at in found)

    def _ranked(self, text: str, words: list[str]) -> Iterator[Iterable[int]]:
        """Give the stops that a query means, kind by kind."""
        if text in self._of_code:
            yield (self._of_code[text],)
        yield self._whole.get(text, ())
        # Places are in the order of their names, so those that begin alike are beside each other.
        begin = bisect_left(self._places, _Place(text, "", ""))
        beginning = range(begin, self._end(begin, text))
        # Who writes Utrecht means the town before all the roads to it.
        whole = set.intersection(*({*self._names.get(word, ()), *self._towns.get(word, ())} for word in words))
        yield [at for at in beginning if at in whole]
        yield nsmallest(MOST, whole)
        yield beginning
        named = [_beginning(self._name_words, self._names, word) for word in words]
        yield nsmallest(MOST, set.intersection(*named))
        coded = [{self._of_code[code] for code in _from(self._codes, word)} for word in words]
        anywhere = [
            of_name | of_code | _beginning(self._town_words, self._towns, word)
            for word, of_name, of_code in zip(words, named, coded, strict=True)
        ]
        yield nsmallest(2 * MOST, set.intersection(*anywhere))

    def _end(self, begin: int, text: str) -> int:
        """Tell where the places end whose names begin so, as far as anybody wants to know."""
        end = begin
        while end < min(begin + 2 * MOST, len(self._places)) and self._places[end].name.startswith(text):
            end += 1
        return end

    def near(self, latitude: float, longitude: float, most: int = MOST) -> list[tuple[str, int]]:
        """Give the codes of the nearest stops, each with its distance in metres, the nearest first."""
        x, y = _rd().transform(longitude, latitude)
        if not (math.isfinite(x) and math.isfinite(y)):
            return []
        column, line = int(x // _CELL), int(y // _CELL)
        found: list[tuple[float, int]] = []
        for ring in range(FARTHEST // _CELL + 1):
            for cell in _ring(column, line, ring):
                for at in self._cells.get(cell, ()):
                    point = self._points[self._places[at].code]
                    found.append((math.hypot(point.x - x, point.y - y), at))
            # Whatever is in a further ring is at least so many metres away.
            if sum(distance <= ring * _CELL for distance, _ in found) >= most:
                break
        return [(self._places[at].code, round(far)) for far, at in nsmallest(most, found) if far <= FARTHEST]


_T = TypeVar("_T")
_U = TypeVar("_U")


def _each(function: Callable[[_T], _U], things: Sequence[_T]) -> Generator[None, None, list[_U]]:
    """Give what a function makes of each thing, bit by bit."""
    made: list[_U] = []
    for begin in range(0, len(things), _BIT):
        made.extend(map(function, things[begin : begin + _BIT]))
        yield
    return made


def _ordered(things: list[Any]) -> Generator[None, None, list[Any]]:
    """Sort things, bit by bit: sixty thousand at one go take a tenth of a second."""
    runs = []
    for begin in range(0, len(things), _BIT):
        runs.append(sorted(things[begin : begin + _BIT]))
        yield
    merged = merge(*runs)
    ordered: list[Any] = []
    while bit := list(islice(merged, _BIT)):
        ordered.extend(bit)
        yield
    return ordered


def _from(ordered: list[str], prefix: str) -> list[str]:
    """Give the texts of an ordered list that begin so."""
    return ordered[bisect_left(ordered, prefix) : bisect_left(ordered, prefix + "\U0010ffff")]


def _beginning(ordered: list[str], table: Mapping[str, list[int]], prefix: str) -> set[int]:
    """Give the places that have a word which begins so."""
    return set().union(*(table[word] for word in _from(ordered, prefix)))


def _ring(column: int, line: int, ring: int) -> Iterator[tuple[int, int]]:
    """Give the squares that are so many away."""
    for dx in range(-ring, ring + 1):
        for dy in range(-ring, ring + 1) if abs(dx) == ring else {-ring, ring}:
            yield column + dx, line + dy


@lru_cache(maxsize=1)
def _rd() -> Transformer:
    return Transformer.from_crs("EPSG:4326", "EPSG:28992", always_xy=True)
