"""Search for places by name, town, code or position. Pure: an index is built in steps, and then immutable."""

import math
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator
from heapq import nsmallest
from typing import NamedTuple

from cachetools import LRUCache
from rapidfuzz import process
from rapidfuzz.distance import OSA

from govi_server.departures.place_words import (
    ARTICLES,
    OPTIONAL_WORDS,
    normalized,
    similar_words,
    synonyms,
    town_forms,
)
from govi_server.departures.places import Place, StopRecord, code_of, make_places
from govi_server.departures.timing_point import rd
from govi_server.runtime.cooperative import STEP_ITEMS, map_in_steps, sort_in_steps

MAX_PLACES = 20
"""Places per result."""

MAX_QUERY_CHARACTERS = 100
"""Longer queries are truncated; a TimingPointName has at most half of this."""

MAX_QUERY_WORDS = 6
"""Words beyond these are ignored."""

MAX_RESULTS = 1024
"""Results that are cached."""

COST_PLACES = 20_000
"""Indexed places for each word of a query that cost a client as much as one request."""

MAX_DISTANCE_METRES = 10_000
"""The search radius around a position."""

MAX_RANKED = 300
"""Places that match equally many words of a query, of which the best are selected: those with most departures."""

_CELL_METRES = 1000
"""Side length of the grid cells by which positions are indexed."""

_PREFIX, _ONE_TYPO, _CONTAINED, _TWO_TYPOS = 0.8, 0.7, 0.6, 0.5
"""The quality of a match, in relation to that of an equal word."""

_MIN_LENGTH_CONTAINED, _MIN_LENGTH_ONE_TYPO, _MIN_LENGTH_TWO_TYPOS = 3, 4, 6
"""Lengths of words from which on words that contain them, and typos, are considered."""

_Qualities = dict[str, float]
"""The quality of the match of one word of a query with words of the index."""


class _WordMatches(NamedTuple):
    """What matches one word of a query."""

    qualities: _Qualities
    places: set[int]


class PlaceIndex:
    """Indexes places by the words of their names and towns, by code, and by grid cell.

    make() builds it. Places are numbered by their departures, so that a lower number is better.
    """

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._names: list[tuple[str, ...]] = []
        """The normalized names of each place, without the town."""
        self._towns: list[str] = []
        """The normalized town of each place."""
        self._of_code: dict[str, int] = {}
        self._codes: list[str] = []
        self._of_area: dict[str, list[int]] = {}
        self._of_word: dict[str, list[int]] = {}
        self._words: list[str] = []
        """Sorted."""
        self._of_length: dict[int, list[str]] = {}
        """The words by their length."""
        self._cells: dict[tuple[int, int], list[int]] = {}
        self._results: LRUCache[str, tuple[Place, ...]] = LRUCache(MAX_RESULTS)  # clients search while they type

    @classmethod
    def make(
        cls, codes: Iterable[str], record: Callable[[str], StopRecord], built: Callable[["PlaceIndex"], object]
    ) -> Iterator[None]:
        """Build an index in steps, and pass it to built(). record: returns what is known of a TimingPointCode."""
        index = cls()
        all_codes = yield from map_in_steps(str, codes)
        index._codes = yield from sort_in_steps(all_codes)
        places = yield from make_places(map(record, index._codes))
        index._places = yield from sort_in_steps(places, lambda place: (-place.n_departures, place.name, place.id))
        yield from map_in_steps(index._add, range(len(places)), STEP_ITEMS // 4)
        index._words = yield from sort_in_steps([*index._of_word])
        for n, word in enumerate(index._words):
            index._of_length.setdefault(len(word), []).append(word)
            if not n % STEP_ITEMS:
                yield
        built(index)

    def _add(self, i: int) -> None:
        place = self._places[i]
        self._of_code.update(dict.fromkeys(place.codes, i))
        for area in place.areas:
            self._of_area.setdefault(normalized(area), []).append(i)
        town = normalized(place.town)
        names = tuple([_without_town(normalized(name), town) for name in (place.name, *place.other_names)])
        self._names.append(names)
        self._towns.append(town)
        for word in _words_of(names, town):
            self._of_word.setdefault(word, []).append(i)
        if place.has_position:
            self._cells.setdefault((int(place.x // _CELL_METRES), int(place.y // _CELL_METRES)), []).append(i)

    def __len__(self) -> int:
        return len(self._places)

    def place_of(self, code: str) -> Place | None:
        """Return the place with a TimingPointCode; None if it is unknown."""
        i = self._of_code.get(code)
        return None if i is None else self._places[i]

    def place(self, identifier: str) -> Place | None:
        """Return the place with an id (see places.place_id); None if it is unknown."""
        return self.place_of(code_of(identifier))

    # By text.

    def cost(self, query: str) -> int:
        """Return the cost of a search: one for every COST_PLACES of each word."""
        words = 0 if query in self._results else len(query.split()[:MAX_QUERY_WORDS])
        return max(words * len(self) // COST_PLACES, 1)

    def find(self, query: str) -> Generator[None, None, tuple[Place, ...]]:
        """Return the places that match a query, in steps, at most MAX_PLACES.

        Best first: the place with a code, of a TimingPoint or a stop area; then places that match all words, by how
        well they do (equal words, words that begin with those of the query, words with one or two typos), and by
        their departures; then, if there are none, places that match some of the words.
        """
        places = self._results.get(query)
        if places is None:
            places = self._results[query] = yield from self._find(query)
        return places

    def _find(self, query: str) -> Generator[None, None, tuple[Place, ...]]:
        text = normalized(query[:MAX_QUERY_CHARACTERS])
        words = [*dict.fromkeys(text.split()[:MAX_QUERY_WORDS])]
        matches: dict[int, None] = dict.fromkeys(self._with_code(text))
        if words:
            yield from self._add_matches(matches, words)
        if len(matches) < MAX_PLACES and len(words) == 1:
            matches.update(dict.fromkeys(self._of_code[code] for code in _with_prefix(self._codes, text, MAX_PLACES)))
        return tuple([self._places[i] for i in matches][:MAX_PLACES])

    def _with_code(self, text: str) -> list[int]:
        """Return the places with a TimingPointCode, an id or a StopAreaCode."""
        code = code_of(text) if text.startswith("p") and code_of(text) in self._of_code else text
        return [self._of_code[code]] if code in self._of_code else self._of_area.get(text, [])[:MAX_PLACES]

    def _add_matches(self, matches: dict[int, None], words: list[str]) -> Generator[None, None, None]:
        """Add the places that match the words, best first."""
        equal = yield from map_in_steps(self._equal, words, 1)
        if (yield from self._add_ranked(matches, equal)):
            return
        begun = yield from map_in_steps(self._begun, words, 1)
        if (yield from self._add_ranked(matches, begun)) or matches:
            return
        for other_words in self._divided(words):
            if (yield from self._add_ranked(matches, [self._equal(word) for word in other_words])) or matches:
                return
        similar: list[_WordMatches] = []
        for word, same, with_prefix in zip(words, equal, begun, strict=True):
            others = {} if same.places else (yield from self._similar(word))
            similar.append(self._matches({**others, **with_prefix.qualities}) if others else with_prefix)
            yield
        if (yield from self._add_ranked(matches, similar)) or matches:
            return
        # Words are omitted: articles, numbers, since they are of a house or a postcode, then those of most places.
        found = [(text, word) for text, word in zip(words, similar, strict=True) if word.places]
        known = [word for text, word in found if text not in ARTICLES] or [word for _, word in found]
        known.sort(key=lambda word: (_is_not_a_number(word), -len(word.places)))
        if known and len(known) < len(words):
            yield from self._add_ranked(matches, known)
        for omitted in range(len(known)) if len(known) > 1 and not matches else ():
            yield from self._add_ranked(matches, known[:omitted] + known[omitted + 1 :])

    def _matches(self, qualities: _Qualities) -> _WordMatches:
        return _WordMatches(qualities, set().union(*(self._of_word[word] for word in qualities)))

    def _equal(self, word: str) -> _WordMatches:
        same = [other for other in (word, *synonyms(word)) if other in self._of_word]
        return self._matches(dict.fromkeys(same, 1.0))

    def _begun(self, word: str) -> _WordMatches:
        same = [other for other in (word, *synonyms(word)) if other in self._of_word]
        similar = [other for other in similar_words(word) if other in self._of_word]
        others = [*_with_prefix(self._words, word), *similar]
        return self._matches({**dict.fromkeys(others, _PREFIX), **dict.fromkeys(same, 1.0)})

    def _similar(self, word: str) -> Generator[None, None, _Qualities]:
        """Return words that contain a word, or differ by one or two letters, in steps.

        An exchange of neighbouring letters is one difference.
        """
        limit = (len(word) >= _MIN_LENGTH_ONE_TYPO) + (len(word) >= _MIN_LENGTH_TWO_TYPOS)
        qualities: _Qualities = {}
        for length, words in self._of_length.items() if len(word) >= _MIN_LENGTH_CONTAINED else ():
            if length > len(word):
                qualities.update((other, _CONTAINED) for other in words if word in other)
                yield
        for length in range(len(word) - limit, len(word) + limit + 1) if limit else ():
            words = self._of_length.get(length, [])
            for other, typos, _ in process.extract(word, words, scorer=OSA.distance, score_cutoff=limit, limit=None):
                qualities[other] = _ONE_TYPO if typos <= 1 else _TWO_TYPOS
            yield
        return qualities

    def _divided(self, words: list[str]) -> Iterator[list[str]]:
        """Yield the words of a query with one divided into two words of the index, or two joined into one."""
        for n, word in enumerate(words):
            for at in range(1, len(word)):
                if word[:at] in self._of_word and word[at:] in self._of_word:
                    yield [*words[:n], word[:at], word[at:], *words[n + 1 :]]
            if n and words[n - 1] + word in self._of_word:
                yield [*words[: n - 1], words[n - 1] + word, *words[n + 1 :]]

    def _add_ranked(self, matches: dict[int, None], words: list[_WordMatches]) -> Generator[None, None, bool]:
        """Add the places that match all words, best first; return whether there are enough."""
        first, *others = sorted([word.places for word in words], key=len)
        new = first
        for places in others:
            new = new & places
        new = new - matches.keys()
        yield
        ranked = sorted(new) if len(new) <= MAX_RANKED else nsmallest(MAX_RANKED, new)
        yield
        alternatives = [word.qualities for word in words]
        ranked.sort(key=lambda i: self._order(i, alternatives))
        matches.update(dict.fromkeys(ranked[: MAX_PLACES - len(matches)]))
        yield
        return len(matches) >= MAX_PLACES

    def _order(self, i: int, alternatives: list[_Qualities]) -> tuple[float, bool, int]:
        """Return the sort key of a place that matches: by quality, completeness and departures."""
        town = self._towns[i]
        in_town = _words_of((), town)
        best = (self._quality_of_name(name.split(), in_town, alternatives) for name in self._names[i])
        return *min(best), i

    def _quality_of_name(
        self, name: list[str], in_town: set[str], alternatives: list[_Qualities]
    ) -> tuple[float, bool]:
        total, is_town = 0.0, True
        for qualities in alternatives:
            of_town = max([qualities.get(word, 0.0) for word in in_town], default=0.0)
            total += max([of_town, *(qualities.get(word, 0.0) for word in name)])
            is_town = is_town and of_town > 0
        unmatched = [
            word for word in name if word not in OPTIONAL_WORDS and not any(word in of for of in alternatives)
        ]
        return -round(total / max(len(alternatives), 1), 2), bool(unmatched) and not is_town

    # By position.

    def near(
        self, latitude: float, longitude: float, limit: int = MAX_PLACES
    ) -> Generator[None, None, list[tuple[Place, int]]]:
        """Return the nearest places with their distances in metres, nearest first, in steps."""
        x, y = rd(longitude, latitude)
        if not (math.isfinite(x) and math.isfinite(y)):
            return []
        column, row = int(x // _CELL_METRES), int(y // _CELL_METRES)
        distances: list[tuple[float, int]] = []
        for ring in range(MAX_DISTANCE_METRES // _CELL_METRES + 1):
            for cell in _cells(column, row, ring):
                yield
                for i in self._cells.get(cell, ()):
                    place = self._places[i]
                    distances.append((math.hypot(place.x - x, place.y - y), i))
            # Places in outer rings are at least ring * _CELL_METRES away.
            if sum(distance <= ring * _CELL_METRES for distance, _ in distances) >= limit:
                break
        nearest = nsmallest(limit, distances)
        return [(self._places[i], round(metres)) for metres, i in nearest if metres <= MAX_DISTANCE_METRES]


def _without_town(name: str, town: str) -> str:
    """Return a normalized name without the town that it begins with."""
    return name.removeprefix(town).strip() if name.startswith(f"{town} ") else name


def _is_not_a_number(word: _WordMatches) -> bool:
    return not all(other[0].isdigit() for other in word.qualities)


def _words_of(names: Iterable[str], town: str) -> set[str]:
    """Return the words of names and a town; people write a town of several words as one, too."""
    towns = town_forms(town)
    words = {word for text in (*names, *towns) for word in text.split()}
    return words | {text.replace(" ", "") for text in towns if text}


def _with_prefix(ordered: list[str], prefix: str, limit: int | None = None) -> list[str]:
    """Return the texts of a sorted list that begin with a prefix."""
    begin, end = bisect_left(ordered, prefix), bisect_left(ordered, prefix + "\U0010ffff")
    return ordered[begin : end if limit is None else min(end, begin + limit)]


def _cells(column: int, row: int, ring: int) -> Iterator[tuple[int, int]]:
    """Yield the cells of the ring at this distance, in cells, around a cell."""
    for dx in range(-ring, ring + 1):
        for dy in range(-ring, ring + 1) if abs(dx) == ring else {-ring, ring}:
            yield column + dx, row + dy
