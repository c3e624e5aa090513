"""Measures what an answer costs, beside other servers that give the same bytes: make bench.

    python bench/hits.py [--quick] [--write FILE.md]

Costs are processor time of the server, user and system, for each answer. All servers run on the first core and are
loaded one after the other from the last one, round by round, so that a noisy machine disturbs all alike; told are
medians, and medians of the ratios of one round. Needs wrk (apt install wrk), two cores, and what peers.py names.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from load import Load, ask_all, more_files, wrk
from peers import CLIENT, CORES, FIRST_PORT, PEERS, Running, govi_cache, peer, started

DEMO = "/kv55/57330430"
MEASURE = "nginx proxy_cache"
"""Whose cost is 1."""

TRIPS = {"0.5 kB": 0, "4 kB": 6, "40 kB": 66}
"""Departures of a board whose document has about this size; bench/gateway.py reads them from the code."""

GATEWAY, CALLBACK = FIRST_PORT + 90, FIRST_PORT + 2


class Report:
    """Says what was measured, and keeps it."""

    def __init__(self) -> None:
        self.text = ""

    def say(self, line: str = "") -> None:
        """Add a line."""
        print(line, flush=True)
        self.text += f"{line}\n"

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table."""
        self.say(f"\n## {title}\n")
        for row in (head, ["---"] * len(head), *rows):
            self.say(f"| {' | '.join(row)} |")


def rounds(servers: Sequence[Running], path: str, n: int, seconds: float, **how: bool) -> dict[str, list[Load]]:
    """Load servers in turn."""
    for server in servers:
        wrk(server, path, 1, **how)  # warm
    return {
        name: [loads[i] for loads in found]
        for found in [[[wrk(server, path, seconds, **how) for server in servers] for _ in range(n)]]
        for i, name in enumerate(server.name for server in servers)
    }


def compared(report: Report, title: str, found: dict[str, list[Load]]) -> None:
    """Tell costs, and how many times that of govi-cache and of the measure each is."""
    measures = ("govi-cache", MEASURE)
    rows = []
    for name, loads in found.items():
        cost = statistics.median(load.cost for load in loads)
        least = min(load.cost for load in loads)
        rate = statistics.median(load.rate for load in loads)
        ratios = [_times(loads, found[measure]) if measure in found else "-" for measure in measures]
        rows.append((name, f"{cost * 1e6:.1f}", f"{least * 1e6:.1f}", *ratios, f"{rate:,.0f}"))
    head = ("server", "us an answer", "least", *(f"of {measure}" for measure in measures), "answers/s")
    report.table(title, head, rows)


def _times(loads: list[Load], measure: list[Load]) -> str:
    return f"{statistics.median(a.cost / b.cost for a, b in zip(loads, measure, strict=True)):.2f}"


def peers(report: Report, folder: Path, quick: bool) -> None:
    """Measure hits of the demo, over connections that stay and over new ones, beside all others."""
    with ExitStack() as running:
        govi = running.enter_context(govi_cache(folder, FIRST_PORT, path=DEMO))
        servers = [govi]
        for i, which in enumerate(PEERS[1:], 1):
            if quick and which.name not in (MEASURE, "bare Twisted protocol"):
                continue
            if which.is_there:
                port = FIRST_PORT + 10 + i
                servers.append(running.enter_context(peer(which, port, govi.port, DEMO, folder)))
            else:
                report.say(f"not here: {which.name} ({which.get})")
        size = len(urllib.request.urlopen(f"http://127.0.0.1:{govi.port}{DEMO}").read())
        n, seconds = (2, 1) if quick else (7, 2)
        compared(report, f"Hits: 50 connections that stay, {size} bytes", rounds(servers, DEMO, n, seconds))
        found = rounds(servers, DEMO, n, seconds, close=True)
        compared(report, f"A new connection for each answer, {size} bytes", found)


def statistics_cost(report: Report, folder: Path, quick: bool) -> None:
    """Measure what the statistics of a hit cost."""
    with ExitStack() as running:
        servers = [
            running.enter_context(govi_cache(folder, FIRST_PORT + 10 * none, path=DEMO, without_statistics=none))
            for none in (False, True)
        ]
        with_them, without = rounds(servers, DEMO, 2 if quick else 15, 1).values()
    each = [(a.cost - b.cost) * 1e6 for a, b in zip(with_them, without, strict=True)]
    rows = []
    for title, pick in (("median", statistics.median), ("least", min)):
        a, b = (pick([load.cost for load in loads]) * 1e6 for loads in (with_them, without))
        rows.append((title, f"{a:.1f}", f"{b:.1f}", f"{a - b if pick is min else statistics.median(each):.1f}"))
    report.table("Statistics of a hit, us", ("", "with", "without", "difference"), rows)


def sizes(report: Report, folder: Path, quick: bool) -> None:
    """Measure hits of other sizes."""
    for title, trips in TRIPS.items():
        if quick and title != "40 kB":
            continue
        path = f"/kv55/57330{trips:03}"
        with ExitStack() as running:
            govi, _ = with_gateway(running, folder, 0.0, path)
            measured = [which for which in PEERS[1:3] if which.is_there]
            servers = [govi]
            for i, which in enumerate(measured):
                port = FIRST_PORT + 30 + 10 * list(TRIPS).index(title) + i
                servers.append(running.enter_context(peer(which, port, govi.port, path, folder)))
            n, seconds = (1, 1) if quick else (5, 2)
            size = len(urllib.request.urlopen(f"http://127.0.0.1:{govi.port}{path}").read())
            compared(report, f"Hits of {title} ({size} bytes)", rounds(servers, path, n, seconds))


def boards(report: Report, folder: Path, _: bool) -> None:
    """Measure departure boards in each of their forms, asked for over one connection, beside /kv55."""
    page, siri = "/board/57330430", "/siri/stop-monitoring.json?MonitoringRef=57330430"
    forms = ((DEMO, "text/xml"), *((page, f"text/{kind}") for kind in ("html", "plain")))
    rows = []
    with ExitStack() as running:
        govi = running.enter_context(govi_cache(folder, FIRST_PORT, path=page))
        for path, accept in (*forms, (page, "application/json"), (siri, "application/json")):
            loads = [wrk(govi, path, 2, connections=1, accept=accept) for _ in range(3)]
            cost = statistics.median(load.cost for load in loads)
            rows.append(
                (path, accept, f"{cost * 1e6:,.0f}", f"{statistics.median(load.rate for load in loads):,.0f}")
            )
    report.table(
        "Boards of one stop of the demo, one connection", ("path", "form", "us an answer", "answers/s"), rows
    )


def many_connections(report: Report, folder: Path, quick: bool) -> None:
    """Measure hits over 50 and over 9,900 connections, and what these weigh.

    These are loaded twice, and what is told is the difference of the two: so it is what an answer costs, without the
    new connections.
    """
    few, many, weights = [], [], []
    for _ in range(1 if quick else 5):
        with ExitStack() as running:
            govi = running.enter_context(govi_cache(folder, FIRST_PORT, path=DEMO))
            one = wrk(govi, DEMO, 1 if quick else 4)
            short, long = (wrk(govi, DEMO, seconds, connections=9900) for seconds in ((2, 4) if quick else (3, 9)))
            few.append(one.cost)
            many.append((long.used - short.used) / (long.answers - short.answers))
            weights.append((long.memory - one.memory) / 9850)
    cost = [statistics.median(costs) * 1e6 for costs in (few, many)]
    ratio = statistics.median(b / a for a, b in zip(few, many, strict=True))
    weight = statistics.median(weights)
    report.table(
        "Connections that stay, each with its deadline",
        ("connections", "us an answer", "of 50", "bytes a connection"),
        [("50", f"{cost[0]:.1f}", "1", "-"), ("9,900", f"{cost[1]:.1f}", f"{ratio:.2f}", f"{weight:,.0f}")],
    )


def misses(report: Report, folder: Path, quick: bool) -> None:
    """Measure what happens when many wait for one stop, and for many."""
    n = 500 if quick else 5000
    rows = []
    small = folder / "small.toml"
    small.write_text(f"[cache]\nentries = {n}\n")
    with ExitStack() as running:
        govi, gateway = with_gateway(running, folder, 1.0, "/kv55/57330000", f"--config={small}")
        loads = (
            ("1,000 clients, one stop", ["/kv55/57331020"] * 1000),
            (f"{n:,} stops, a client each", [f"/kv55/1{stop:05}020" for stop in range(n)]),
            (f"{n:,} others, which make the first go", [f"/kv55/2{stop:05}020" for stop in range(n)]),
            (f"{n:,} others", [f"/kv55/3{stop:05}020" for stop in range(n)]),
        )
        for title, paths in loads[: 2 if quick else None]:
            before = asked(gateway)["asked"]
            moments = ask_all(govi.port, paths)
            told = asked(gateway)
            late = f"{(max(moments) - told['answered']) * 1000:.0f} ms"
            time.sleep(1)
            memory = f"{govi.memory() / 1e6:.0f} MB"
            rows.append((title, f"{len(moments):,}", f"{told['asked'] - before:,.0f}", late, memory))
    head = ("a gateway that takes 1 s", "answered", "questions", "last answer after the callback", "memory after it")
    report.table("Misses", head, rows)


def with_gateway(running: ExitStack, folder: Path, delay: float, path: str, *options: str) -> tuple[Running, Running]:
    """Start govi-cache in front of bench/gateway.py."""
    script = [sys.executable, str(Path(__file__).with_name("gateway.py"))]
    command = [*script, str(GATEWAY), f"http://127.0.0.1:{CALLBACK}/", str(delay)]
    gateway = running.enter_context(started("gateway", GATEWAY, command, folder, core=CLIENT))
    url = f"--gateway-url=http://127.0.0.1:{GATEWAY}/"
    return running.enter_context(govi_cache(folder, FIRST_PORT, url, *options, path=path)), gateway


def asked(gateway: Running) -> dict[str, float]:
    """Ask bench/gateway.py what it did."""
    said: dict[str, float] = json.load(urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/"))
    return said


def machine() -> str:
    """Describe the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {cpu}, {len(CORES)} cores, load {os.getloadavg()[0]:.1f} before; "
        f"Linux {platform.release().partition('-')[0]}; Python {platform.python_version()}; "
        f"servers on core {CORES[0]}, wrk on {CORES[-1]}"
    )


PARTS: dict[str, Callable[[Report, Path, bool], None]] = {
    "peers": peers,
    "statistics": statistics_cost,
    "sizes": sizes,
    "boards": boards,
    "connections": many_connections,
    "misses": misses,
}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of each")
    parser.add_argument("--write", metavar="FILE", help="where the report goes, too")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this")
    options = parser.parse_args()
    if len(CORES) < 2:
        parser.error("servers and their load need a core each")
    more_files()
    report = Report()
    report.say("# What an answer costs\n")
    report.say(f"By `make {'bench-quick' if options.quick else 'bench'}`. {machine()}.")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # varnish reads its part as a user of its own
        for part in options.part or (part for part in PARTS if not (options.quick and part == "boards")):
            PARTS[part](report, Path(folder), options.quick)
    if options.write:
        Path(options.write).write_text(report.text)


if __name__ == "__main__":
    main()
