"""Measures the cost of a response, and that of the same response by other servers: make bench-hits.

    python bench/hits.py [--quick] [--write FILE.md]

The cost is the processor time of the server, user and system, per response. All servers run on the first core and
are loaded in turn from the last one, round by round, so that noise affects all equally. Results are medians of the
rounds, and medians of the ratios within a round. Requires wrk (apt install wrk) and two cores. The servers are in
peers.py.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from load import HitWatch, Load, raise_file_limit, request_all, request_each, wrk
from peers import CLIENT, CORES, FIRST_PORT, HERE, NGINX_WITH_LOG, PEERS, Running, govi_cache, peer, running_server
from report import Report

DEMO = "/kv55/57330430"
REFERENCE = "nginx proxy_cache"
"""The server whose cost is 1."""

TRIPS = {"0.5 kB": 0, "4 kB": 6, "40 kB": 66}
"""Departures of a board whose document has about this size; they are the last digits of the stop's code."""

GATEWAY, CALLBACK = FIRST_PORT + 90, FIRST_PORT + 2

HIT = "/kv55/57330000"
"""The path of an empty board."""


def rounds(
    servers: Sequence[Running], path: str, n: int, seconds: float, close: bool = False
) -> dict[str, list[Load]]:
    """Load the servers in turn; return their loads by name."""
    for server in servers:
        wrk(server, path, 1, close=close)  # warm up
    loads: dict[str, list[Load]] = {server.name: [] for server in servers}
    for _ in range(n):
        for server in servers:
            loads[server.name].append(wrk(server, path, seconds, close=close))
    return loads


def report_costs(report: Report, title: str, results: dict[str, list[Load]], reference: str = REFERENCE) -> None:
    """Add a table of costs, and of their ratios to those of govi-cache and of the reference."""
    references = ("govi-cache", reference)
    rows = []
    for name, loads in results.items():
        cost = statistics.median(load.cost for load in loads)
        least = min(load.cost for load in loads)
        rate = statistics.median(load.rate for load in loads)
        ratios = [_ratio(loads, results[other]) if other in results else "-" for other in references]
        rows.append((name, f"{cost * 1e6:.1f}", f"{least * 1e6:.1f}", *ratios, f"{rate:,.0f}"))
    head = ("server", "us/response", "least", *(f"to {other}" for other in references), "responses/s")
    report.table(title, head, rows)


def _ratio(loads: list[Load], reference: list[Load]) -> str:
    return f"{statistics.median(a.cost / b.cost for a, b in zip(loads, reference, strict=True)):.2f}"


def peers(report: Report, folder: Path, quick: bool) -> None:
    """Measure hits of the demo, over persistent and over new connections, by govi-cache and the other servers."""
    with ExitStack() as running:
        govi = running.enter_context(govi_cache(folder, FIRST_PORT, path=DEMO))
        servers = [govi]
        for i, other in enumerate(PEERS[1:], 1):
            if quick and other.name not in (REFERENCE, "bare Twisted protocol"):
                continue
            if other.is_installed:
                port = FIRST_PORT + 10 + i
                servers.append(running.enter_context(peer(other, port, govi.port, DEMO, folder)))
            else:
                report.line(f"not installed: {other.name} ({other.install})")
        size = len(urllib.request.urlopen(f"http://127.0.0.1:{govi.port}{DEMO}").read())
        n, seconds = (2, 1) if quick else (7, 2)
        report_costs(report, f"Hits: 50 persistent connections, {size} bytes", rounds(servers, DEMO, n, seconds))
        results = rounds(servers, DEMO, n, seconds, close=True)
        report_costs(report, f"Hits: a new connection per request, {size} bytes", results)


def statistics_cost(report: Report, folder: Path, quick: bool) -> None:
    """Measure hits with the statistics log, without it, and without statistics; beside them nginx with its log."""
    variants: tuple[tuple[str, list[str], Path | None], ...] = (
        ("govi-cache with its statistics log", [f"--statistics={folder / 'statistics.log'}"], None),
        ("govi-cache without the log", [], None),
        ("govi-cache without statistics", [], HERE / "without_statistics.py"),
    )
    with ExitStack() as running:
        servers = [
            running.enter_context(
                govi_cache(folder, FIRST_PORT + 10 * i, *options, path=DEMO, name=name, twistd=twistd)
            )
            for i, (name, options, twistd) in enumerate(variants)
        ]
        if NGINX_WITH_LOG.is_installed:
            servers.append(
                running.enter_context(peer(NGINX_WITH_LOG, FIRST_PORT + 30, servers[0].port, DEMO, folder))
            )
        results = rounds(servers, DEMO, 2 if quick else 15, 1)
    with_log = next(iter(results.values()))
    rows = []
    for name, loads in results.items():
        costs = [load.cost * 1e6 for load in loads]
        less = statistics.median((a.cost - b.cost) * 1e6 for a, b in zip(with_log, loads, strict=True))
        rows.append(
            (name, f"{statistics.median(costs):.1f}", f"{min(costs):.1f}", f"{less:.1f}", _ratio(with_log, loads))
        )
    head = ("server", "us/response", "least", "with the log less this, us", "with the log to this")
    report.table("Statistics of a hit", head, rows)


def sizes(report: Report, folder: Path, quick: bool) -> None:
    """Measure hits of several sizes."""
    for title, trips in TRIPS.items():
        if quick and title != "40 kB":
            continue
        path = f"/kv55/57330{trips:03}"
        with ExitStack() as running:
            govi, _ = with_gateway(running, folder, 0.0, path)
            others = [other for other in PEERS[1:3] if other.is_installed]
            servers = [govi]
            for i, other in enumerate(others):
                port = FIRST_PORT + 30 + 10 * list(TRIPS).index(title) + i
                servers.append(running.enter_context(peer(other, port, govi.port, path, folder)))
            n, seconds = (1, 1) if quick else (5, 2)
            size = len(urllib.request.urlopen(f"http://127.0.0.1:{govi.port}{path}").read())
            report_costs(report, f"Hits of {title} ({size} bytes)", rounds(servers, path, n, seconds))


def boards(report: Report, folder: Path, _: bool) -> None:
    """Measure departure boards in each representation, and /kv55, over one connection."""
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
        "Boards of one stop of the demo, one connection", ("path", "type", "us/response", "responses/s"), rows
    )


def many_connections(report: Report, folder: Path, quick: bool) -> None:
    """Measure hits over 50 and over 9,900 connections, and the memory per connection.

    The many connections are loaded twice, for different times: the difference excludes the cost of connecting.
    """
    few, many, sizes = [], [], []
    for _ in range(1 if quick else 5):
        with ExitStack() as running:
            govi = running.enter_context(govi_cache(folder, FIRST_PORT, path=DEMO))
            load = wrk(govi, DEMO, 1 if quick else 4)
            short, long = (wrk(govi, DEMO, seconds, connections=9900) for seconds in ((2, 4) if quick else (3, 9)))
            few.append(load.cost)
            many.append((long.used - short.used) / (long.responses - short.responses))
            sizes.append((long.memory - load.memory) / 9850)
    cost = [statistics.median(costs) * 1e6 for costs in (few, many)]
    ratio = statistics.median(b / a for a, b in zip(few, many, strict=True))
    size = statistics.median(sizes)
    report.table(
        "Persistent connections, each with a deadline",
        ("connections", "us/response", "to 50", "bytes/connection"),
        [("50", f"{cost[0]:.1f}", "1", "-"), ("9,900", f"{cost[1]:.1f}", f"{ratio:.2f}", f"{size:,.0f}")],
    )


def misses(report: Report, folder: Path, quick: bool) -> None:
    """Measure misses one after the other, and many concurrent ones for one stop and for many stops."""
    n = 500 if quick else 5000
    rows = []
    small = folder / "small.toml"
    small.write_text(f"[cache]\nentries = {n + 1}\n")
    with ExitStack() as running:
        govi, gateway = with_gateway(running, folder, 1.0, HIT, f"--config={small}")
        loads = (
            ("1,000 clients, one stop", ["/kv55/57331020"] * 1000),
            (f"{n:,} stops, one client each", [f"/kv55/1{stop:05}020" for stop in range(n)]),
            (f"{n:,} others, which evict the first", [f"/kv55/2{stop:05}020" for stop in range(n)]),
            (f"{n:,} others", [f"/kv55/3{stop:05}020" for stop in range(n)]),
        )
        for title, paths in loads[: 2 if quick else None]:
            before, used = counts(gateway)["requests"], govi.cpu()
            with HitWatch(govi, HIT) as watch:
                times = request_all(govi.port, paths)
            cost = (govi.cpu() - used) / len(paths)
            after = counts(gateway)
            delay = f"{(max(times) - after['last_response']) * 1000:.0f} ms"
            time.sleep(1)
            memory = f"{govi.memory() / 1e6:.0f} MB"
            requests = f"{after['requests'] - before:,.0f}"
            waits = f"{watch.longest * 1000:.0f} ms", f"{watch.most_used * 1000:.0f} ms"
            rows.append((title, f"{len(times):,}", requests, f"{cost * 1e6:,.0f}", delay, *waits, memory))
    head = (
        "gateway with a delay of 1 s",
        "responses",
        "gateway requests",
        "us/response",
        "last response after its callback",
        "longest wait of a hit meanwhile",
        "processor time in a wait, at most",
        "memory",
    )
    report.table("Misses", head, rows)
    miss_costs(report, folder, quick)


def miss_costs(report: Report, folder: Path, quick: bool) -> None:
    """Measure the processor time of a miss, and the part of it that is spent after the gateway's callback."""
    alone, requests, callbacks = [], [], []
    n = 200 if quick else 500
    for first in range(0, 2 * n if quick else 10 * n, 2 * n):
        with ExitStack() as running:
            govi, _ = with_gateway(running, folder, 0.0, HIT)
            used = govi.cpu()
            request_each(govi.port, [f"/kv55/1{stop:05}020" for stop in range(first, first + n)])
            alone.append((govi.cpu() - used) / n)
        with ExitStack() as running:
            govi, gateway = with_gateway(running, folder, 4.0, HIT)
            used, paths = govi.cpu(), [f"/kv55/1{stop:05}020" for stop in range(first, first + n)]
            with ThreadPoolExecutor(1) as pool:
                responses = pool.submit(request_all, govi.port, paths)
                while counts(gateway)["requests"] < n:
                    time.sleep(0.1)
                requested = govi.cpu()
                responses.result()
            requests.append((requested - used) / n)
            callbacks.append((govi.cpu() - requested) / n)
    rows = [
        (title, f"{statistics.median(costs) * 1e6:,.0f}", f"{min(costs) * 1e6:,.0f}")
        for title, costs in (
            ("one after the other, over one connection", alone),
            (f"{n:,} at once, each over a new connection: up to the gateway's acknowledgement", requests),
            ("the same: from the callback", callbacks),
        )
    ]
    report.table("Processor time of a miss of 20 departures", ("", "us", "least"), rows)


def with_gateway(running: ExitStack, folder: Path, delay: float, path: str, *options: str) -> tuple[Running, Running]:
    """Start govi-cache with bench/gateway.py as its gateway."""
    script = [sys.executable, str(Path(__file__).with_name("gateway.py"))]
    command = [*script, str(GATEWAY), f"http://127.0.0.1:{CALLBACK}/", str(delay)]
    gateway = running.enter_context(running_server("gateway", GATEWAY, command, folder, cores=(CLIENT,)))
    url = f"--gateway-url=http://127.0.0.1:{GATEWAY}/"
    return running.enter_context(govi_cache(folder, FIRST_PORT, url, *options, path=path)), gateway


def counts(gateway: Running) -> dict[str, float]:
    """Return the counts of bench/gateway.py."""
    document: dict[str, float] = json.load(urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/"))
    return document


PARTS: dict[str, Callable[[Report, Path, bool], None]] = {
    "peers": peers,
    "statistics": statistics_cost,
    "sizes": sizes,
    "boards": boards,
    "connections": many_connections,
    "misses": misses,
}


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter measurements")
    parser.add_argument("--write", metavar="FILE", help="file that the report is written to")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; repeatable")
    options = parser.parse_args()
    if len(CORES) < 2:
        parser.error("two cores are required, for servers and load")
    raise_file_limit()
    report = Report("The cost of a response", f"By `make {'bench-quick' if options.quick else 'bench-hits'}`.")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # varnish runs as its own user
        for part in options.part or (part for part in PARTS if not (options.quick and part == "boards")):
            PARTS[part](report, Path(folder), options.quick)
    if options.write:
        report.write(Path(options.write))


if __name__ == "__main__":
    main()
