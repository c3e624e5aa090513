"""Measures the search for places among as many stops as the Netherlands have: python -m bench.search"""

import random
import statistics
from collections.abc import Callable, Iterable
from time import process_time

from govi_server.departures.place_index import PlaceIndex
from govi_server.runtime.cooperative import run_now
from tests.departures.dutch_stops import QUERIES, stop_records

STOPS = 60_000


def main() -> None:
    """Run the measurements. All times are processor time."""
    draw = random.Random(1)
    records = {record.code: record for record in stop_records(STOPS)}
    indexes: list[PlaceIndex] = []
    steps, before = [], process_time()
    for _ in PlaceIndex.make(records, records.__getitem__, indexes.append):
        steps.append(process_time() - before)
        before = process_time()
    steps.sort()
    index = indexes[0]
    p99, longest = steps[-len(steps) // 100] * 1000, steps[-1] * 1000
    print(
        f"{len(index):,} places of {STOPS:,} stops, {len(index._words):,} words: "
        f"{sum(steps):.2f} s in {len(steps):,} steps, p99 {p99:.1f}, longest {longest:.1f} ms"
    )
    worst = 0.0

    def measure(name: str, search: Callable[[str], object], queries: Iterable[str]) -> None:
        durations = []
        for query in queries:
            start = process_time()
            search(query)
            durations.append((process_time() - start) * 1000)
        durations.sort()
        print(
            f"{name:28} median {statistics.median(durations):7.3f}, "
            f"p99 {durations[-1 - len(durations) // 100]:7.3f}, longest {durations[-1]:7.3f} ms"
        )

    def find(query: str) -> object:
        nonlocal worst
        begun = process_time()
        for _ in index._find(query):  # without the cache of results
            now = process_time()
            worst, begun = max(worst, now - begun), now
        return None

    words = index._words
    measure("one letter or digit", find, "abcdefghijklmnopqrstuvwxyz0123456789")
    measure("three letters", find, (draw.choice(words)[:3] for _ in range(500)))
    measure("two words", find, (f"{draw.choice(words)} {draw.choice(words)}" for _ in range(500)))
    measure("what people type", find, QUERIES)
    measure("the same while typing", find, (query[:n] for query in QUERIES for n in range(1, len(query))))
    measure(
        "six words with typos", find, ("amstredam roterdam utrehct eidnhoven gronigen nijmgen" for _ in range(20))
    )
    measure("six single letters", find, ("s d k b w l" for _ in range(20)))
    positions = (f"{draw.uniform(51, 53)} {draw.uniform(4, 6.5)}" for _ in range(500))
    run_now(index.near(52, 5))

    def near(position: str) -> object:
        latitude, longitude = map(float, position.split())
        return run_now(index.near(latitude, longitude))

    measure("near", near, positions)
    print(f"longest step of a search {worst * 1000:.1f} ms")

    failed = [query for query in QUERIES if not _is_first(index, query)]
    print(f"{len(QUERIES) - len(failed)} of {len(QUERIES)} queries find their place first{failed or ''}")


def _is_first(index: PlaceIndex, query: str) -> bool:
    first = next(iter(run_now(index.find(query))), None)
    return first is not None and (first.town, first.name) == QUERIES[query]


if __name__ == "__main__":
    main()
