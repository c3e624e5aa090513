"""Search for stops by name, town, code or position. Pure: an index is built in steps, and then immutable."""

import math
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from heapq import nsmallest
from itertools import islice
from typing import NamedTuple

from cachetools import LRUCache

from govi_server.departures.display import place
from govi_server.departures.timing_point import TimingPoint, rd
from govi_server.runtime.cooperative import map_in_steps, sort_in_steps

MAX_STOPS = 20
"""Stops per result."""

MAX_QUERY_CHARACTERS = 100
"""Longer queries are truncated; a TimingPointName has at most half of this."""

MAX_QUERY_WORDS = 6
"""Words beyond these are ignored."""

MAX_RESULTS = 1024
"""Results that are cached."""

COST_STOPS = 20_000
"""Indexed stops for each word of a query that cost a client as much as one request."""

MAX_DISTANCE_METRES = 10_000
"""The search radius around a position."""

_CELL_METRES = 1000
"""Side length of the grid cells by which positions are indexed."""

_WORD = re.compile(r"\w+")
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "_": " "})  # not decomposed by NFKD


def folded(text: str) -> str:
    """Return a text for comparison: words of lower-case letters and digits, without accents, separated by spaces."""
    decomposed = unicodedata.normalize("NFKD", text).casefold().translate(_LETTERS)
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(_WORD.findall(plain))


class _Place(NamedTuple):
    """A stop's texts for comparison; the sort order of equally good matches."""

    name: str
    """Without the town, which most names begin with."""
    town: str
    code: str

    @property
    def full_name(self) -> str:
        return f"{self.town} {self.name}".strip()


def _place(code: str, point: TimingPoint | None) -> _Place:
    name, town = map(folded, place(point.name, point.town) if point is not None else ("", ""))
    short_name = name.removeprefix(town).strip() if name.startswith(f"{town} ") else name
    return _Place(short_name, town, code)


class StopIndex:
    """Indexes stops by the words of their names and towns, and by grid cell.

    make() builds it from points, the timetable's stops, and codes, stops that may lack a name.
    """

    def __init__(self, points: Mapping[str, TimingPoint]) -> None:
        self._points = points
        self._places: list[_Place] = []
        self._of_code: dict[str, int] = {}
        self._codes: list[str] = []
        self._names: dict[str, list[int]] = {}
        self._towns: dict[str, list[int]] = {}
        self._full_names: dict[str, list[int]] = {}
        self._cells: dict[tuple[int, int], list[int]] = {}
        self._name_words: list[str] = []
        self._town_words: list[str] = []
        self._results: LRUCache[str, tuple[str, ...]] = LRUCache(MAX_RESULTS)  # clients search while they type

    @classmethod
    def make(
        cls, points: Mapping[str, TimingPoint], codes: Iterable[str], built: Callable[["StopIndex"], object]
    ) -> Iterator[None]:
        """Build an index in steps, and pass it to built()."""
        index = cls(dict(points))  # a snapshot
        index._codes = yield from sort_in_steps([*{**points, **dict.fromkeys(codes)}])
        places = yield from map_in_steps(lambda code: _place(code, index._points.get(code)), index._codes)
        index._places = yield from sort_in_steps(places)
        yield from map_in_steps(index._add, range(len(places)))
        index._name_words = yield from sort_in_steps([*index._names])
        index._town_words = yield from sort_in_steps([*index._towns])
        built(index)

    def _add(self, i: int) -> None:
        place = self._places[i]
        self._of_code[place.code] = i
        for words, table in ((place.name, self._names), (place.town, self._towns)):
            for word in set(words.split()):
                table.setdefault(word, []).append(i)
        for name in {place.name, place.full_name} - {""}:
            self._full_names.setdefault(name, []).append(i)
        point = self._points.get(place.code)
        if point is not None and point.has_position:
            self._cells.setdefault((point.x // _CELL_METRES, point.y // _CELL_METRES), []).append(i)

    def __len__(self) -> int:
        return len(self._places)

    def cost(self, query: str) -> int:
        """Return the cost of a search: one for every COST_STOPS of each word."""
        words = 0 if query in self._results else len(query.split()[:MAX_QUERY_WORDS])
        return max(words * len(self) // COST_STOPS, 1)

    def find(self, query: str) -> Generator[None, None, tuple[str, ...]]:
        """Return the codes of the stops that match a query, in steps.

        Best first: an exact code, an exact name, all words in name or town (names that begin with the query first), a
        name that begins with the query, a name with words that begin with the query's, and name, town and code with
        words that do.
        """
        codes = self._results.get(query)
        if codes is None:
            codes = self._results[query] = yield from self._find(query)
        return codes

    def _find(self, query: str) -> Generator[None, None, tuple[str, ...]]:
        text = folded(query[:MAX_QUERY_CHARACTERS])
        words = [*dict.fromkeys(text.split()[:MAX_QUERY_WORDS])]
        matches: dict[int, None] = {}
        for group in self._ranked(text, words) if words else ():
            yield
            new = (i for i in group if i not in matches)
            matches.update(dict.fromkeys(islice(new, MAX_STOPS - len(matches))))
            if len(matches) == MAX_STOPS:
                break
        return tuple(self._places[i].code for i in matches)

    def _ranked(self, text: str, words: list[str]) -> Generator[Iterable[int], None, None]:
        """Yield the matching stops in groups, best first; an empty group after each step."""
        if text in self._of_code:
            yield (self._of_code[text],)
        yield self._full_names.get(text, ())
        # Places are sorted by name, so those with a common prefix are adjacent.
        begin = bisect_left(self._places, _Place(text, "", ""))
        with_prefix = range(begin, self._end(begin, text))
        # Whole words rank above prefixes: "Utrecht" finds the town before the Utrechtseweg.
        with_words = yield from _intersection(
            {*self._names.get(word, ()), *self._towns.get(word, ())} for word in words
        )
        yield [i for i in with_prefix if i in with_words]
        yield nsmallest(MAX_STOPS, with_words)
        yield with_prefix
        by_name = yield from _intersection(_places_with_prefix(self._name_words, self._names, word) for word in words)
        yield nsmallest(MAX_STOPS, by_name)
        by_any = yield from _intersection(map(self._places_with, words))
        yield nsmallest(2 * MAX_STOPS, by_any)

    def _places_with(self, prefix: str) -> set[int]:
        """Return the stops with a prefix in a word of name or town, or in the code."""
        names = _places_with_prefix(self._name_words, self._names, prefix)
        names |= _places_with_prefix(self._town_words, self._towns, prefix)
        return names.union(self._of_code[code] for code in _with_prefix(self._codes, prefix))

    def _end(self, begin: int, text: str) -> int:
        """Return the end of the places whose names begin with a text, up to twice MAX_STOPS of them."""
        end = begin
        while end < min(begin + 2 * MAX_STOPS, len(self._places)) and self._places[end].name.startswith(text):
            end += 1
        return end

    def near(
        self, latitude: float, longitude: float, limit: int = MAX_STOPS
    ) -> Generator[None, None, list[tuple[str, int]]]:
        """Return the codes of the nearest stops with their distances in metres, nearest first, in steps."""
        x, y = rd(longitude, latitude)
        if not (math.isfinite(x) and math.isfinite(y)):
            return []
        column, row = int(x // _CELL_METRES), int(y // _CELL_METRES)
        distances: list[tuple[float, int]] = []
        for ring in range(MAX_DISTANCE_METRES // _CELL_METRES + 1):
            for cell in _cells(column, row, ring):
                yield
                for i in self._cells.get(cell, ()):
                    point = self._points[self._places[i].code]
                    distances.append((math.hypot(point.x - x, point.y - y), i))
            # Stops in outer rings are at least ring * _CELL_METRES away.
            if sum(distance <= ring * _CELL_METRES for distance, _ in distances) >= limit:
                break
        nearest = nsmallest(limit, distances)
        return [(self._places[i].code, round(metres)) for metres, i in nearest if metres <= MAX_DISTANCE_METRES]


def _intersection(sets: Iterable[set[int]]) -> Generator[tuple[()], None, set[int]]:
    """Return the intersection of sets, in steps."""
    common: set[int] | None = None
    for members in sets:
        common = members if common is None else common & members
        yield ()
    return common or set()


def _with_prefix(ordered: list[str], prefix: str) -> list[str]:
    """Return the texts of a sorted list that begin with a prefix."""
    return ordered[bisect_left(ordered, prefix) : bisect_left(ordered, prefix + "\U0010ffff")]


def _places_with_prefix(ordered: list[str], table: Mapping[str, list[int]], prefix: str) -> set[int]:
    """Return the indexes of the places with a word that begins with a prefix."""
    return set().union(*(table[word] for word in _with_prefix(ordered, prefix)))


def _cells(column: int, row: int, ring: int) -> Iterator[tuple[int, int]]:
    """Yield the cells of the ring at this distance, in cells, around a cell."""
    for dx in range(-ring, ring + 1):
        for dy in range(-ring, ring + 1) if abs(dx) == ring else {-ring, ring}:
            yield column + dx, row + dy
