"""Measures responses for random stops while the live feed changes them: make bench-live.

    python bench/live.py [--stops 2000] [--form /kv55]... [--gzip] [--quick] [--write FILE.md]

The feed is that of feed.py. The server is alone on the first core; feed and load are on the last one. The cost is the
processor time of the server, user and system, less what the feed alone takes, per response. Requires wrk
(apt install wrk) and two cores.
"""

import argparse
import gzip
import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from feed import code
from hits import Report, machine
from load import raise_file_limit, wrk_random
from peers import CLIENT, CORES, FIRST_PORT, HERE, Running, govi_cache

CONFIG = """
[feed.subscriber]
recovery = 2.0  # the feed is complete when all passtimes were sent once
"""


@dataclass(frozen=True)
class Form:
    """A path with a place for the stop, the media type to request, and what a complete body contains."""

    path: str
    accept: str
    contains: bytes
    count: int


FORMS = {
    "/kv55": Form("/kv55/{}", "text/xml", b"<Trip>", 5),
    "/tpc": Form("/tpc/{}", "application/json", b'"ExpectedDepartureTime"', 10),
    "/siri": Form(
        "/siri/stop-monitoring.json?MonitoringRef={}",
        "application/json",
        b'"ExpectedDepartureTime"',
        10,
    ),
    "/board HTML": Form("/board/{}", "text/html", b"<tr", 5),
    "/board JSON": Form("/board/{}", "application/json", b'"expected"', 5),
    "/board text": Form("/board/{}", "text/plain", b"\n", 5),
}


def request_each(port: int, form: Form, stops: int, encoding: str = "identity") -> tuple[int, int]:
    """Request each stop once; return the bytes of the bodies, uncompressed, and the fewest occurrences."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    size, fewest = 0, 1 << 30
    for stop in range(stops):
        path = form.path.format(code(stop))
        connection.request("GET", path, headers={"Accept": form.accept, "Accept-Encoding": encoding})
        response = connection.getresponse()
        body = response.read()
        if response.getheader("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        occurrences = body.count(form.contains)
        if response.status != 200 or occurrences < form.count:
            raise SystemExit(
                f"{path}: {response.status} with {occurrences} {form.contains!r}\n{body[:3000].decode()}"
            )
        size += len(body)
        fewest = min(fewest, occurrences)
    connection.close()
    return size, fewest


@contextmanager
def fed_server(folder: Path, port: int, stops: int, rate: int, changed: float, *options: str) -> Iterator[Running]:
    """Run govi-cache with a feed in a context; yield it once all passtimes were sent."""
    config = folder / "live.toml"
    config.write_text(CONFIG)
    feed_port = port + 5
    publisher = subprocess.Popen(
        ["taskset", "-c", str(CLIENT), sys.executable, str(HERE / "feed.py"), str(feed_port),
         f"--stops={stops}", f"--rate={rate}", f"--changed={changed}"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        arguments = (
            f"--config={config}",
            "--source=kv78turbo",
            f"--feed=tcp://127.0.0.1:{feed_port}",
            f"--statistics={folder / 'statistics.log'}",
            *options,
        )
        with govi_cache(folder, port, *arguments, path="/docs") as server:
            assert publisher.stdout is not None
            if not publisher.stdout.readline():
                raise SystemExit("the feed ended")
            time.sleep(3)
            yield server
    finally:
        publisher.terminate()
        publisher.wait()


def feed_alone(server: Running, seconds: float) -> float:
    """Return the processor time of the server per second without requests."""
    start, used = time.monotonic(), server.cpu()
    time.sleep(seconds)
    return (server.cpu() - used) / (time.monotonic() - start)


def saturation(report: Report, server: Running, folder: Path, options: argparse.Namespace) -> None:
    """Measure random stops and a repeated hit, as fast as the server responds."""
    encoding = "gzip" if options.gzip else "identity"
    forms = {name: FORMS[name] for name in options.form or FORMS}
    sizes = {}
    for name, form in forms.items():
        size, _ = request_each(server.port, form, options.stops, encoding)
        sizes[name] = size / options.stops
    n, seconds = (1, 2) if options.quick else (options.rounds, options.seconds)
    rows, shares = [], [feed_alone(server, 4)]
    for name, form in forms.items():
        files = {}
        for kind, stops in (("random", options.stops), ("hit", 1)):
            files[kind] = folder / f"{kind}.txt"
            files[kind].write_text("".join(form.path.format(code(stop)) + "\n" for stop in range(stops)))
            wrk_random(server, files[kind], 1, accept=form.accept, encoding=encoding)
        costs: dict[str, list[float]] = {kind: [] for kind in files}
        rates: dict[str, list[float]] = {kind: [] for kind in files}
        for _ in range(n):
            shares.append(feed_alone(server, 2))
            for kind, file in files.items():
                load = wrk_random(server, file, seconds, accept=form.accept, encoding=encoding)
                duration = load.responses / load.rate
                costs[kind].append((load.used - shares[-1] * duration) / load.responses)
                rates[kind].append(load.rate)
        request_each(server.port, form, min(options.stops, 100), encoding)
        ratios = [a / b for a, b in zip(costs["random"], costs["hit"], strict=True)]
        rows.append(
            (
                name,
                f"{sizes[name]:,.0f}",
                *(f"{pick(costs['random']) * 1e6:.1f}" for pick in (statistics.median, min)),
                *(f"{pick(costs['hit']) * 1e6:.1f}" for pick in (statistics.median, min)),
                f"{statistics.median(ratios):.1f}",
                f"{statistics.median(rates['random']):,.0f}",
            )
        )
        report.line(f"{name}: random {rows[-1][2]} us, hit {rows[-1][4]} us, ratio {rows[-1][6]}")
    shares.append(feed_alone(server, 4))
    head = ("path", "bytes", "random stop, us", "least", "repeated hit, us", "least", "ratio", "random stops/s")
    report.table(
        f"Random stops of {options.stops:,} under the feed: 20 connections, {options.rate:,} rows/s, "
        f"{options.changed:.0%} changed, {encoding}",
        head,
        rows,
    )
    report.line(
        f"\nThe feed alone: {statistics.median(shares):.1%} of a core (least {min(shares):.1%}); "
        f"memory {server.memory() / 1e6:.0f} MB."
    )


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=2000)
    parser.add_argument("--rate", type=int, default=1000, help="rows per second of the feed")
    parser.add_argument("--changed", type=float, default=0.5, help="share of the rows that are changed")
    parser.add_argument("--form", choices=FORMS, action="append", help="only this form; repeatable")
    parser.add_argument("--gzip", action="store_true", help="request compressed responses")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="duration of a load")
    parser.add_argument("--port", type=int, default=FIRST_PORT, help="first of ten ports")
    parser.add_argument("--quick", action="store_true", help="shorter measurements")
    parser.add_argument("--write", metavar="FILE", help="file that the report is written to")
    options = parser.parse_args()
    if len(CORES) < 2:
        parser.error("two cores are required, for server and load")
    raise_file_limit()
    report = Report()
    report.line(f"{machine()}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with fed_server(folder, options.port, options.stops, options.rate, options.changed) as server:
            print(f"server: process {server.process.pid}, port {server.port}", flush=True)
            saturation(report, server, folder, options)
    if options.write:
        Path(options.write).write_text(report.text)


if __name__ == "__main__":
    main()
