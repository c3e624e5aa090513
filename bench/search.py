"""Measures the search among as many fictitious stops as the Netherlands have: python bench/search.py"""

import random
import statistics
from collections.abc import Callable, Iterable
from time import perf_counter

from govi_server.departures.stop_index import StopIndex
from govi_server.departures.timing_point import TimingPoint
from govi_server.runtime.cooperative import run_now

STOPS = 60_000

_SYLLABLES = (
    *(
        "ba",
        "de",
        "ko",
        "lin",
        "mer",
        "wa",
        "ter",
        "hof",
        "dijk",
        "brink",
        "poort",
        "straat",
        "laan",
        "plein",
        "kerk",
    ),
    *(
        "school",
        "dorp",
        "stad",
        "veld",
        "berg",
        "oever",
        "zand",
        "sta",
        "tion",
        "cen",
        "trum",
        "noord",
        "zuid",
        "west",
    ),
)


def main() -> None:
    """Run the measurements."""
    draw = random.Random(1)

    def word() -> str:
        return "".join(draw.choice(_SYLLABLES) for _ in range(draw.randint(2, 4)))

    towns, words = [word() for _ in range(2500)], [word() for _ in range(15_000)]
    points = {}
    for n in range(STOPS):
        town, name = draw.choice(towns), " ".join(draw.choice(words) for _ in range(draw.choice((1, 1, 2))))
        x, y = draw.randrange(20_000, 280_000), draw.randrange(310_000, 610_000)
        points[str(10_000_000 + n * 37)] = TimingPoint(f"{town}, {name}", town, None, x, y)

    indexes: list[StopIndex] = []
    steps, before = [], perf_counter()
    for _ in StopIndex.make(points, (), indexes.append):
        steps.append(perf_counter() - before)
        before = perf_counter()
    steps.sort()
    index = indexes[0]
    p99, longest = steps[-len(steps) // 100] * 1000, steps[-1] * 1000
    print(
        f"index of {STOPS:,} stops: {sum(steps):.2f} s in {len(steps)} steps, p99 {p99:.1f}, longest {longest:.1f} ms"
    )

    def measure(name: str, search: Callable[[str], object], queries: Iterable[str]) -> None:
        durations = []
        for query in queries:
            start = perf_counter()
            search(query)
            durations.append((perf_counter() - start) * 1000)
        print(f"{name:24} median {statistics.median(durations):7.3f} ms, longest {max(durations):7.3f} ms")

    def find(query: str) -> object:
        return run_now(index._find(query))  # without the cache of results

    measure("one letter or digit", find, "abcdefghijklmnopqrstuvwxyz0123456789")
    measure("three letters", find, (draw.choice(words)[:3] for _ in range(500)))
    measure("town and half a name", find, (f"{draw.choice(towns)} {draw.choice(words)[:4]}" for _ in range(500)))
    measure("six single letters", find, ("s d k b w l" for _ in range(20)))
    run_now(index.near(52, 5))
    places = (f"{draw.uniform(51, 53)} {draw.uniform(4, 6.5)}" for _ in range(500))
    measure("near", lambda place: run_now(index.near(*map(float, place.split()))), places)


if __name__ == "__main__":
    main()
