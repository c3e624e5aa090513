"""Measures responses for random stops while a live feed changes them: make bench-live.

    python bench/live.py [--part random]... [--stops 2000]... [--form /kv55]... [--gzip] [--quick] [--write FILE.md]

The server is alone on the first core; the feed (feed.py) and the load are on the last one. The cost of a response is
the processor time of the server, user and system, less what the feed alone takes. All stops have been requested
before, in each form. Requires two cores and wrk (apt install wrk); nginx and uvicorn are measured if they are
installed (apt install nginx-light, pip install 'uvicorn[standard]').
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fed import fed_server, held_connections
from feed import planning_seconds, stop_code
from load import BoardRequests, Load, pin_to_client_core, raise_file_limit
from open_loop import Latencies, open_loop, request_each
from peers import (
    CORES,
    FIRST_PORT,
    NGINX_WITH_LOG,
    UVICORN,
    Running,
    nginx_for_5_seconds,
    uvicorn_with_documents,
)
from report import Report

FORMS: dict[str, tuple[str, str, bytes]] = {
    "/kv55": ("/kv55/{}", "text/xml", b"<Trip>"),
    "/tpc": ("/tpc/{}", "application/json", b'"ExpectedDepartureTime"'),
    "/siri": ("/siri/stop-monitoring.json?MonitoringRef={}", "application/json", b'"ExpectedDepartureTime"'),
    "/board HTML": ("/board/{}", "text/html", b"<tr"),
    "/board JSON": ("/board/{}", "application/json", b'"expected"'),
    "/board text": ("/board/{}", "text/plain", b"\n"),
}
"""Path, media type, and what a body contains for each departure."""

SHORT_FORMS = ("/kv55", "/board HTML")
"""The forms of short measurements, and of those of other servers."""

LATENCY_SECONDS = 4.0
"""How long each round of a measurement of latencies lasts, at saturation and at half of it."""

WARM_UP_SECONDS = 2
"""How long a repeated hit runs before it is measured."""

STORED_SECONDS = 10.0
"""For how long boards are stored at most. Random stops are requested for so long before they are measured, and while
they are: the first requests meet boards that have changed during other loads, and those that were made at the same
moment expire together."""

MIN_DEPARTURES = 5
"""Departures in a complete body; each form shows its own horizon of the 20 in two hours."""


Columns = tuple[str, ...]
"""Columns of a row of the report."""


@dataclass(frozen=True)
class Options:
    """What to measure.

    forms: names of FORMS; rate: rows per second; changed: the share of rows that are changed; planning: planned
    passtimes that are loaded.
    """

    stops: Sequence[int]
    forms: Sequence[str]
    rate: int
    changed: float
    encoding: str
    rounds: int
    seconds: float
    planning: int
    port: int
    is_quick: bool

    def feed(self, stops: int) -> str:
        """Describe the feed."""
        return f"{stops:,} stops of 20 passtimes, {self.rate:,} rows/s, {self.changed:.0%} of them changed"

    @property
    def feed_seconds(self) -> float:
        """How long the feed alone is measured: the tables are swept once a minute."""
        return 5.0 if self.is_quick else 60.0

    @property
    def latency_rounds(self) -> int:
        """In how many rounds latencies are measured."""
        return 1 if self.is_quick else 5

    def requests(self, form: str, stops: int) -> BoardRequests:
        """Return the requests for a form of the boards of so many stops."""
        path, accept, contains = FORMS[form]
        paths = [path.format(stop_code(stop)) for stop in range(stops)]
        return BoardRequests(paths, accept, contains, MIN_DEPARTURES, self.encoding)


@dataclass
class Rounds:
    """A load, repeated. feed_share: of a core, what the feed alone takes, which is subtracted."""

    loads: list[Load] = field(default_factory=list)
    feed_share: float = 0.0

    @property
    def costs(self) -> list[float]:
        """The processor seconds per response."""
        return [load.cost - self.feed_share / load.rate for load in self.loads]

    @property
    def rate(self) -> float:
        """The median of the responses per second."""
        return statistics.median(load.rate for load in self.loads)

    def columns(self) -> tuple[str, str]:
        """Return the median and the least cost in microseconds."""
        return f"{statistics.median(self.costs) * 1e6:.1f}", f"{min(self.costs) * 1e6:.1f}"

    def ratio(self, other: "Rounds") -> str:
        """Return the median of the ratios to another load in the same rounds."""
        return f"{statistics.median(a / b for a, b in zip(self.costs, other.costs, strict=True)):.2f}"


def steady_load(server: Running, requests: BoardRequests, working: Sequence[Running] = ()) -> Load:
    """Request random stops at saturation for so long that what is measured does not depend on other loads."""
    requests.wrk(server, STORED_SECONDS, working=working)
    return requests.wrk(server, STORED_SECONDS, working=working)


def latencies_at_half(
    server: Running, requests: BoardRequests, rounds: int, working: Sequence[Running] = ()
) -> Columns:
    """Measure the rate of saturation, and then an open loop at half of it, several times; return the columns.

    The machine may be twice as fast in one minute as in the next.
    """
    requests.wrk(server, STORED_SECONDS, working=working)
    rates, loops = [], []
    for _ in range(rounds):
        rates.append(requests.wrk(server, LATENCY_SECONDS, working=working).rate / 2)
        loops.append(open_loop(server.port, requests, rates[-1], LATENCY_SECONDS))
    return latency_columns(rates, loops)


LATENCY_HEAD = ("requests/s", "p50", "p90", "p99", "p99.9", "max", "p99 of the rounds", "client's own p99.9")


def latency_columns(rates: Sequence[float], loops: Sequence[Latencies]) -> Columns:
    """Return the columns of LATENCY_HEAD for some rounds, in milliseconds: medians, but the greatest maximum."""
    overload = ", overload" if any(loop.is_overloaded for loop in loops) else ""
    times = [statistics.median(loop.quantile(q) for loop in loops) for q in (0.5, 0.9, 0.99, 0.999)]
    times.append(max(loop.quantile(1.0) for loop in loops))
    p99_by_round = " ".join(f"{loop.quantile(0.99) * 1000:.1f}" for loop in loops)
    late = statistics.median(loop.late_quantile(0.999) for loop in loops)
    columns = [f"{seconds * 1000:.2f}" for seconds in times]
    return f"{statistics.median(rates):,.0f}{overload}", *columns, p99_by_round, f"{late * 1000:.2f}"


def random_stops(report: Report, folder: Path, options: Options) -> None:
    """Measure random stops and a repeated hit at saturation, and random stops at half of it, with an open loop."""
    for stops in options.stops:
        sizes, results, latency_rows = {}, {}, []
        with fed_server(folder, options.port, stops, options.rate, options.changed) as fed:
            for form in options.forms:
                sizes[form] = request_each(options.port, options.requests(form, stops)).size
            memory, before = fed.server.memory(), fed.feed_share(options.feed_seconds)
            for form in options.forms:
                loads = options.requests(form, stops), options.requests(form, 1)
                results[form] = random, hit = Rounds(), Rounds()
                request_each(options.port, loads[0])  # what has changed while other forms were loaded
                for _ in range(options.rounds):
                    random.loads.append(steady_load(fed.server, loads[0]))
                    loads[1].wrk(fed.server, WARM_UP_SECONDS)
                    hit.loads.append(loads[1].wrk(fed.server, options.seconds))
                latency_rows.append((form, *latencies_at_half(fed.server, loads[0], options.latency_rounds)))
                print(form, *(f"{rounds.columns()[0]} us" for rounds in results[form]), flush=True)
            after = fed.feed_share(options.feed_seconds)
        rows = []
        for form, (random, hit) in results.items():
            random.feed_share = hit.feed_share = (before + after) / 2
            row = (form, f"{sizes[form]:,.0f}", *random.columns(), *hit.columns(), random.ratio(hit))
            rows.append((*row, f"{random.rate:,.0f}", f"{hit.rate:,.0f}"))
        encoding = "" if options.encoding == "identity" else f", {options.encoding}"
        head = (
            "path",
            "bytes",
            "random stop, us",
            "least",
            "repeated hit, us",
            "least",
            "ratio",
            "random/s",
            "hits/s",
        )
        report.table(f"Random stops: {options.feed(stops)}; 20 connections{encoding}", head, rows)
        report.line(
            f"\nThe feed alone, when all stops have been requested in each form: {before:.1%} of a core before the "
            f"loads, {after:.1%} after them, over {options.feed_seconds:.0f} s. Memory before them: "
            f"{memory / 1e6:,.0f} MB."
        )
        title = (
            f"Random stops of {stops:,} at half of the saturation measured just before, open loop, ms from when a "
            f"request was due; medians of {options.latency_rounds} rounds"
        )
        report.table(title, ("path", *LATENCY_HEAD), latency_rows)


def peers(report: Report, folder: Path, options: Options) -> None:
    """Measure the same boards through nginx, and as constant documents."""
    stops = options.stops[0]
    for form in SHORT_FORMS[: 1 if options.is_quick else None]:
        loads = options.requests(form, stops), options.requests(form, 1)
        with ExitStack() as stack:
            fed = stack.enter_context(fed_server(folder, options.port, stops, options.rate, options.changed))
            request_each(options.port, loads[0])
            share = fed.feed_share(options.feed_seconds)
            servers: list[tuple[Running, Sequence[Running]]] = [(fed.server, (fed.server,))]
            if NGINX_WITH_LOG.is_installed:
                nginx = stack.enter_context(nginx_for_5_seconds(folder, options.port + 6, options.port))
                servers.append((nginx, (nginx, fed.server)))
            if UVICORN.is_installed:
                paths, accept = loads[0].paths, loads[0].accept
                uvicorn = uvicorn_with_documents(folder, options.port + 7, options.port, paths, accept)
                running = stack.enter_context(uvicorn)
                servers.append((running, (running,)))
            results = []
            for _, working in servers:
                feed_share = share if fed.server in working else 0.0
                results.append((Rounds(feed_share=feed_share), Rounds(feed_share=feed_share)))
            for _ in range(options.rounds):
                for (server, working), result in zip(servers, results, strict=True):
                    random, hit = result
                    random.loads.append(steady_load(server, loads[0], working))
                    hit.loads.append(loads[1].wrk(server, options.seconds, working=working))
            rows = []
            for (server, working), (random, hit) in zip(servers, results, strict=True):
                row = (server.name, *random.columns(), random.ratio(results[0][0]), *hit.columns())
                rows.append((*row, *latencies_at_half(server, loads[0], options.latency_rounds, working)))
        head = ("server", "random stop, us", "least", "to govi-cache", "repeated hit, us", "least", *LATENCY_HEAD)
        title = f"{form} by other servers: {options.feed(stops)}; latencies in ms at half of saturation, in rounds"
        report.table(title, head, rows)
    report.line(
        "\nnginx caches for 5 s in front of the same govi-cache: the cost is that of both processes, and its boards "
        "may be 5 s older. uvicorn has the documents of one moment in a dict, and no feed. All servers share a core."
    )


def held(report: Report, folder: Path, options: Options) -> None:
    """Measure an open loop at half of saturation, while connections are held and planning is loaded."""
    stops, form = options.stops[0], options.forms[0]
    idle, n_streams = (200, 50) if options.is_quick else (2000, 500)
    duration = planning_seconds(options.planning) + 2
    requests = options.requests(form, stops)
    with fed_server(folder, options.port, stops, options.rate, options.changed, options.planning) as fed:
        request_each(options.port, requests)
        rows = []
        paths = [f"/events/{stop_code(stop)}" for stop in range(n_streams)]
        with held_connections(options.port, requests.paths[0], idle, paths) as streams:
            requests.wrk(fed.server, STORED_SECONDS)
            rate = Rounds([requests.wrk(fed.server, options.seconds) for _ in range(options.rounds)]).rate / 2
            for is_loading, title in enumerate(("without planning", "while planning is loaded")):
                open_loop(options.port, requests, rate, STORED_SECONDS)  # so that boards do not expire together
                before, events, start = fed.metrics(), streams.events, time.monotonic()
                if is_loading:
                    fed.start_planning()
                latencies = open_loop(options.port, requests, rate, duration if is_loading else min(duration, 30.0))
                if is_loading:
                    fed.wait_for_feed()
                after = fed.metrics()
                turns = [_longer_turns(before, after, bound) for bound in ("0.01", "0.05")]
                n_events = f"{(streams.events - events) / (time.monotonic() - start):.0f}"
                rows.append((title, *latency_columns([rate], [latencies]), *turns, n_events))
            loaded = fed.metrics()["govi_feed_planned_passes"]
    title = (
        f"Everything at once: {form}, {options.feed(stops)}; {idle:,} idle connections, {n_streams} event streams of "
        f"as many stops, {loaded:,.0f} planned passtimes loaded; ms"
    )
    report.table(title, ("", *LATENCY_HEAD, "turns above 10 ms", "above 50 ms", "events/s"), rows)


def _longer_turns(before: dict[str, float], after: dict[str, float], bound: str) -> str:
    """Return the number of turns of the reactor that used more processor time than a bound in seconds."""
    longer = [
        metrics['govi_turn_seconds_bucket{le="+Inf"}'] - metrics[f'govi_turn_seconds_bucket{{le="{bound}"}}']
        for metrics in (before, after)
    ]
    return f"{longer[1] - longer[0]:.0f}"


def memory(report: Report, folder: Path, options: Options) -> None:
    """Measure memory when all stops of a country have been requested in each form."""
    stops = 10_000 if options.is_quick else 100_000
    with fed_server(folder, options.port, stops, options.rate, options.changed) as fed:
        share = f"{fed.feed_share(options.feed_seconds):.1%}"
        rows = [("all passtimes received", f"{fed.server.memory() / 1e6:,.0f}", "", share)]
        for form in options.forms:
            before = fed.server.cpu()
            request_each(options.port, options.requests(form, stops))
            cost = (fed.server.cpu() - before) / stops
            size = f"{fed.server.memory() / 1e6:,.0f}"
            share = f"{fed.feed_share(options.feed_seconds):.1%}"
            rows.append((f"{form} of each stop requested", size, f"{cost * 1e6:.0f}", share))
    head = ("", "memory, MB", "us/response, with the feed", "the feed alone, of a core")
    report.table(f"Memory: {options.feed(stops)}", head, rows)


PARTS: dict[str, Callable[[Report, Path, Options], None]] = {
    "random": random_stops,
    "peers": peers,
    "held": held,
    "memory": memory,
}


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; repeatable")
    parser.add_argument("--stops", type=int, action="append", help="number of stops; repeatable (2000 and 5000)")
    parser.add_argument("--form", choices=FORMS, action="append", help="only this form; repeatable")
    parser.add_argument("--rate", type=int, default=1000, help="rows per second of the feed")
    parser.add_argument("--changed", type=float, default=0.5, help="share of the rows that are changed")
    parser.add_argument("--planning", type=int, help="planned passtimes that are loaded in part held (200000)")
    parser.add_argument("--gzip", action="store_true", help="request compressed responses")
    parser.add_argument("--rounds", type=int, help="rounds of each load (2)")
    parser.add_argument("--seconds", type=float, help="duration of a repeated hit (3)")
    parser.add_argument("--port", type=int, default=FIRST_PORT, help="first of ten ports")
    parser.add_argument("--quick", action="store_true", help="shorter measurements")
    parser.add_argument("--write", metavar="FILE", help="file in which the chapter of this report is replaced")
    arguments = parser.parse_args()
    if len(CORES) < 2:
        parser.error("two cores are required, for server and load")
    quick = arguments.quick
    options = Options(
        stops=arguments.stops or ((2000,) if quick else (2000, 5000)),
        forms=arguments.form or (SHORT_FORMS if quick else tuple(FORMS)),
        rate=arguments.rate,
        changed=arguments.changed,
        encoding="gzip" if arguments.gzip else "identity",
        planning=arguments.planning or (20_000 if quick else 200_000),
        rounds=arguments.rounds or (1 if quick else 2),
        seconds=arguments.seconds or (2.0 if quick else 3.0),
        port=arguments.port,
        is_quick=quick,
    )
    raise_file_limit()
    pin_to_client_core()
    report = Report("Random stops under a live feed", f"By `make bench-{'quick' if quick else 'live'}`.")
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.part or (("random",) if quick else PARTS):
            PARTS[part](report, Path(folder), options)
    if arguments.write:
        report.write(Path(arguments.write))


if __name__ == "__main__":
    main()
