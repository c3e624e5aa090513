"""Measures responses for random stops while a live feed changes them: make bench-live.

    python bench/live.py [--part random]... [--stops 2000]... [--form /kv55]... [--gzip] [--quick] [--write FILE.md]

The server is alone on the first core; the feed (feed.py) and the load are on the last one. The cost of a response is
the processor time of the server, user and system, less what the feed alone takes, which is measured before each load.
All stops have been requested before, in each form. Requires two cores and wrk (apt install wrk); nginx and uvicorn
are measured if they are installed (apt install nginx-light, pip install 'uvicorn[standard]').
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

MIN_DEPARTURES = 5
"""Departures in a complete body; each form shows its own horizon of the 20 in two hours."""


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

    def requests(self, form: str, stops: int) -> BoardRequests:
        """Return the requests for a form of the boards of so many stops."""
        path, accept, contains = FORMS[form]
        paths = [path.format(stop_code(stop)) for stop in range(stops)]
        return BoardRequests(paths, accept, contains, MIN_DEPARTURES, self.encoding)


@dataclass
class Costs:
    """The processor seconds of responses in rounds of a load, without the feed, and the responses per second."""

    costs: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def add(self, load: Load, feed_share: float) -> None:
        """Add a round."""
        self.rates.append(load.rate)
        self.costs.append(load.cost - feed_share / load.rate)

    @property
    def rate(self) -> float:
        """The median of the responses per second."""
        return statistics.median(self.rates)

    def columns(self) -> tuple[str, str]:
        """Return the median and the least in microseconds."""
        return f"{statistics.median(self.costs) * 1e6:.1f}", f"{min(self.costs) * 1e6:.1f}"

    def ratio(self, other: "Costs") -> str:
        """Return the median of the ratios to another load in the same rounds."""
        return f"{statistics.median(a / b for a, b in zip(self.costs, other.costs, strict=True)):.2f}"


LATENCY_HEAD = ("requests/s", "p50", "p90", "p99", "p99.9", "max", "client's own p99.9")


def latency_columns(rate: float, latencies: Latencies) -> tuple[str, ...]:
    """Return the columns of LATENCY_HEAD, in milliseconds."""
    overload = ", overload" if latencies.is_overloaded else ""
    times = [latencies.quantile(q) for q in (0.5, 0.9, 0.99, 0.999, 1.0)] + [latencies.late_quantile(0.999)]
    return (f"{rate:,.0f}{overload}", *(f"{seconds * 1000:.2f}" for seconds in times))


def random_stops(report: Report, folder: Path, options: Options) -> None:
    """Measure random stops and a repeated hit at saturation, and random stops at half of it, with an open loop."""
    for stops in options.stops:
        with fed_server(folder, options.port, stops, options.rate, options.changed) as fed:
            sizes = {form: request_each(options.port, options.requests(form, stops)).size for form in options.forms}
            memory = fed.server.memory()
            shares = [fed.feed_share(5)]
            rows, latency_rows = [], []
            for form in options.forms:
                requests, repeated = options.requests(form, stops), options.requests(form, 1)
                random, hit = Costs(), Costs()
                for is_first in (True, *[False] * options.rounds):
                    shares.append(fed.feed_share(1 if is_first else 2))
                    for costs, load in ((random, requests), (hit, repeated)):
                        result = load.wrk(fed.server, 1 if is_first else options.seconds)
                        if not is_first:  # the first warms up
                            costs.add(result, shares[-1])
                rate = random.rate / 2
                latencies = open_loop(options.port, requests, rate, options.seconds * options.rounds)
                ratio = random.ratio(hit)
                rows.append(
                    (form, f"{sizes[form]:,.0f}", *random.columns(), *hit.columns(), ratio, f"{random.rate:,.0f}")
                )
                latency_rows.append((form, *latency_columns(rate, latencies)))
                print(rows[-1], latency_rows[-1], flush=True)
            shares.append(fed.feed_share(5))
        head = ("path", "bytes", "random stop, us", "least", "repeated hit, us", "least", "ratio", "random stops/s")
        encoding = "" if options.encoding == "identity" else f", {options.encoding}"
        report.table(f"Random stops: {options.feed(stops)}; 20 connections{encoding}", head, rows)
        report.line(
            f"\nThe feed alone, after all stops were requested in each form: {statistics.median(shares):.1%} of a "
            f"core (least {min(shares):.1%}). Memory after each stop was requested: {memory / 1e6:,.0f} MB."
        )
        title = f"Random stops of {stops:,} at half of that rate, open loop, ms from when a request was due"
        report.table(title, ("path", *LATENCY_HEAD), latency_rows)


def peers(report: Report, folder: Path, options: Options) -> None:
    """Measure the same boards through nginx, and as constant documents."""
    stops = options.stops[0]
    for form in SHORT_FORMS[: 1 if options.is_quick else None]:
        requests, repeated = options.requests(form, stops), options.requests(form, 1)
        with ExitStack() as stack:
            fed = stack.enter_context(fed_server(folder, options.port, stops, options.rate, options.changed))
            request_each(options.port, requests)
            servers: list[tuple[Running, Sequence[Running]]] = [(fed.server, (fed.server,))]
            if NGINX_WITH_LOG.is_installed:
                nginx = stack.enter_context(nginx_for_5_seconds(folder, options.port + 6, options.port))
                servers.append((nginx, (nginx, fed.server)))
            if UVICORN.is_installed:
                uvicorn = stack.enter_context(
                    uvicorn_with_documents(folder, options.port + 7, options.port, requests.paths, requests.accept)
                )
                servers.append((uvicorn, (uvicorn,)))
            results = [(Costs(), Costs()) for _ in servers]
            for is_first in (True, *[False] * options.rounds):
                for (server, working), result in zip(servers, results, strict=True):
                    share = fed.feed_share(2) if fed.server in working else 0.0
                    for costs, load in zip(result, (requests, repeated), strict=True):
                        measured = load.wrk(server, 1 if is_first else options.seconds, working=working)
                        if not is_first:
                            costs.add(measured, share)
            rows = []
            for (server, _), (random, hit) in zip(servers, results, strict=True):
                latencies = open_loop(server.port, requests, random.rate / 2, options.seconds * options.rounds)
                ratio = random.ratio(results[0][0])
                rows.append(
                    (
                        server.name,
                        *random.columns(),
                        ratio,
                        *hit.columns(),
                        *latency_columns(random.rate / 2, latencies),
                    )
                )
        head = ("server", "random stop, us", "least", "to govi-cache", "repeated hit, us", "least", *LATENCY_HEAD)
        report.table(
            f"{form} by other servers: {options.feed(stops)}; latencies in ms at half of the saturation", head, rows
        )
    report.line(
        "\nnginx caches for 5 s in front of the same govi-cache: the cost is that of both processes, and its boards "
        "may be 5 s older. uvicorn has the documents of one moment in a dict, and no feed. All servers share a core."
    )


def held(report: Report, folder: Path, options: Options) -> None:
    """Measure an open loop at half of saturation while connections are held and planning is loaded."""
    stops, form = options.stops[0], options.forms[0]
    idle, n_streams = (200, 50) if options.is_quick else (2000, 500)
    duration = planning_seconds(options.planning) + 2
    requests = options.requests(form, stops)
    with fed_server(folder, options.port, stops, options.rate, options.changed, options.planning) as fed:
        request_each(options.port, requests)
        rate = Costs()
        for _ in range(options.rounds):
            rate.add(requests.wrk(fed.server, options.seconds), 0.0)
        rows = []
        paths = [f"/events/{stop_code(stop)}" for stop in range(n_streams)]
        with held_connections(options.port, requests.paths[0], idle, paths) as streams:
            for is_loading, title in enumerate(("without planning", "while planning is loaded")):
                before, events, start = fed.metrics(), streams.events, time.monotonic()
                if is_loading:
                    fed.start_planning()
                latencies = open_loop(
                    options.port, requests, rate.rate / 2, duration if is_loading else min(duration, 30.0)
                )
                if is_loading:
                    fed.wait_for_feed()
                after = fed.metrics()
                turns = [_longer_turns(before, after, bound) for bound in ("0.01", "0.05")]
                n_events = f"{(streams.events - events) / (time.monotonic() - start):.0f}"
                rows.append((title, *latency_columns(rate.rate / 2, latencies), *turns, n_events))
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
        rows = [("all passtimes received", f"{fed.server.memory() / 1e6:,.0f}", "", f"{fed.feed_share(5):.1%}")]
        for form in options.forms:
            before = fed.server.cpu()
            request_each(options.port, options.requests(form, stops))
            cost = (fed.server.cpu() - before) / stops
            size = f"{fed.server.memory() / 1e6:,.0f}"
            rows.append((f"{form} of each stop requested", size, f"{cost * 1e6:.0f}", f"{fed.feed_share(5):.1%}"))
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
    parser.add_argument("--rounds", type=int, help="rounds of each load (3)")
    parser.add_argument("--seconds", type=float, help="duration of a load (3)")
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
        rounds=arguments.rounds or (1 if quick else 3),
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
