"""The whole program, always on the same morning, with a feed that the tests publish.

The town of Waterdorp has a stop for every state of a board.
"""

import gzip
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import zmq

from govi_server.simulator.town import Town
from govi_server.simulator.town_feed import timetable_messages
from tests import feed as kv

MORNING = "2026-01-15T08:14:05+01:00"
"""The time at which tests start: a Thursday, far from midnight and from the changes of summer time."""

_START = datetime.fromisoformat(MORNING).timestamp()

STATION = "/board/57330430"
"""The page of the simulator's station."""

_STATION, _PLANNED, _CANCELLED, _NONE = "40000010", "40000020", "40000030", "40000040"
PATHS = {
    "live": f"/board/{_STATION}",
    "planned": f"/board/{_PLANNED}",
    "cancelled": f"/board/{_CANCELLED}",
    "none": f"/board/{_NONE}",
    "unknown": "/board/49999999",
    "wall": f"/board/{_STATION}?view=wall",
    "wall of two": f"/board/{_STATION},{_CANCELLED}?view=wall",
}
"""The page of each state of a stop while the feed is UP."""
LOOKS = {
    **{look: ("served", path) for look, path in PATHS.items()},
    "last known": ("silent", PATHS["live"]),
    "down": ("down", PATHS["live"]),
}
"""The server and the page of every state."""


CLOCK_STEP = 240
"""Seconds by which advance_clock() advances a server's clock."""

# SIGUSR2 advances its clock; SIGUSR1 stops and restarts it.
_TWISTD = """
import signal, sys, time
start, step, real = float(sys.argv.pop(1)), float(sys.argv.pop(1)), time.time
ahead = start - real()
running = time.time = lambda: real() + ahead
def stop(*_):
    now = running()
    time.time = (lambda: now) if time.time is running else running
signal.signal(signal.SIGUSR1, stop)
signal.signal(signal.SIGUSR2, lambda *_: globals().update(ahead=ahead + step))
from twisted.scripts.twistd import run
run()
"""

# Data stays fresh while a test runs, and the feed is UP as soon as its first message arrives.
_CONFIG = """
[feed.limits]
fresh = {fresh}
stale = 900.0
[feed.subscriber]
recovery = 0.1
silence = 600.0
"""


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition. Raises AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.02)


_SITES = {"govi-cache": "govi-cache", "govi-simulator": "simulated gateway"}  # names of the ports in their logs


@contextmanager
def twistd(folder: Path, *arguments: str) -> Iterator[str]:
    """Run a twistd command in a context; yield the address on which it listens, from its log."""
    log = folder / f"{arguments[0]}-{next(_numbers)}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _TWISTD, str(_START), str(CLOCK_STEP), "--nodaemon", "--pidfile=", *arguments],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def listens() -> re.Match[str] | None:
        assert process.poll() is None, log.read_text()
        return re.search(rf"Listening on (\S+) for {_SITES[arguments[0]]}(?::|$)", log.read_text(), re.MULTILINE)

    try:
        until(listens)
        match = listens()
        assert match is not None  # the condition of until()
        _processes[f"http://{match[1]}"], _logs[f"http://{match[1]}"] = process, log
        yield match[1]
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
    assert "Traceback" not in log.read_text(), log.read_text()
    assert process.returncode == -signal.SIGTERM, log.read_text()  # twistd exits by the signal


_numbers = count()
_processes: dict[str, subprocess.Popen[bytes]] = {}  # by URL
_logs: dict[str, Path] = {}  # by URL


def status_url(url: str) -> str:
    """Return the URL of the status page of a server, which its log has."""
    match = re.search(r" for operators: (\S+)$", _logs[url].read_text(), re.MULTILINE)
    assert match is not None, _logs[url].read_text()
    return match[1]


def advance_clock(url: str) -> None:
    """Advance the clock of a server by CLOCK_STEP, as if no data had arrived in that time."""
    _processes[url].send_signal(signal.SIGUSR2)


@contextmanager
def still(url: str) -> Iterator[None]:
    """Stop the clock of a server in a context; it continues to respond, but its timers do not run."""
    _processes[url].send_signal(signal.SIGUSR1)
    try:
        yield
    finally:
        _processes[url].send_signal(signal.SIGUSR1)


@contextmanager
def frozen(url: str) -> Iterator[None]:
    """Suspend a server in a context; its connections stay open, but silent."""
    _processes[url].send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        _processes[url].send_signal(signal.SIGCONT)


@contextmanager
def cache(folder: Path, feed: str, *more: str, fresh: float = 900.0, listen: str = "127.0.0.1:0") -> Iterator[str]:
    """Run govi-cache with a feed in a context; yield its URL.

    fresh: seconds for which data is fresh. listen: address and port; port 0 is any.
    """
    config = folder / f"{next(_numbers)}.toml"
    config.write_text(_CONFIG.format(fresh=fresh))
    interface, port = listen.split(":")
    ports = ["--listen", f"tcp:{port}:interface={interface}", "--admin", "tcp:0:interface=127.0.0.1"]
    with twistd(
        folder, "govi-cache", "--config", str(config), "--feed", feed, "--gtfs", "", *ports, *more
    ) as address:
        yield f"http://{address}"


@contextmanager
def town(folder: Path) -> Iterator[str]:
    """Run govi-cache and the simulator with its feed in a context; yield the URL."""
    feed = f"ipc://{folder}/town"
    timetable = folder / "timetable"  # the feed repeats it only once a minute
    timetable.mkdir()
    for number, message in enumerate(timetable_messages(Town(), _START)):
        (timetable / f"{number}.ctx").write_bytes(message.ctx)
    with (
        twistd(folder, "govi-simulator", "--listen", "tcp:0:interface=127.0.0.1", "--feed", feed),
        cache(folder, feed, "--timetable", str(timetable)) as url,
    ):
        until(lambda: document(url, STATION)["name"])
        until(lambda: state(url, STATION) == "live")
        yield url


@contextmanager
def served(folder: Path, fresh: float = 900.0, shown: str = "live") -> Iterator[tuple[str, "Publisher"]]:
    """Run govi-cache with the feed of Waterdorp in a context; yield its URL and the publisher.

    shown: the state of the station after all messages.
    """
    publisher = Publisher(f"ipc://{folder}/{next(_numbers)}")
    try:
        with cache(folder, publisher.address, fresh=fresh) as url:
            publisher.wait()
            for message in WATERDORP:
                publisher.send(message)

            def settled() -> bool:
                publisher.send(b"")  # the feed is UP with the first message after recovery
                return state(url, PATHS["live"]) == shown and state(url, PATHS["unknown"]) == "unknown"

            until(settled)
            yield url, publisher
    finally:
        publisher.close()


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Run servers with the feed of Waterdorp, a silent feed and no feed in a context; yield their URLs by name."""
    with served(folder) as (url, _), failing_servers(folder) as failing:
        yield {"served": url, **failing}


@contextmanager
def failing_servers(folder: Path) -> Iterator[dict[str, str]]:
    """Run the servers with a silent feed and no feed in a context; yield their URLs by name."""
    with (
        served(folder, fresh=0.001, shown="last_known") as (silent, _),
        cache(folder, f"ipc://{folder}/absent") as down,
    ):
        yield {"silent": silent, "down": down}


class Publisher:
    """A publisher of the messages of a test."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.xpub_verbose = True  # for each subscriber
        self._socket.bind(address)

    def wait(self) -> None:
        """Wait for subscriptions to KV7 and to KV8."""
        n_subscriptions = 0
        while n_subscriptions < 2:
            assert self._socket.poll(20_000), "no subscriber"
            n_subscriptions += self._socket.recv().startswith(b"\1")  # others are cancellations

    def send(self, message: bytes) -> None:
        """Send a message; an empty one is a heartbeat."""
        self._socket.send_multipart([b"/GOVI/KV8passtimes/LIN", gzip.compress(message)])

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(linger=0)


def state(url: str, path: str) -> str:
    """Return the state of a stop."""
    return str(document(url, path)["state"])


def document(url: str, path: str) -> dict[str, Any]:
    """Return the JSON of the first stop of a board."""
    request = urllib.request.Request(url + path, headers={"Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read()
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
    stop: dict[str, Any] = json.loads(text)["stops"][0]
    return stop


# The feed of Waterdorp


def passtimes(*rows: kv.Row, at: str = "08:14:00") -> bytes:
    """Return a KV8 message of passtimes. at: the time of their update."""
    stamp = f"2026-01-15T{at}+01:00"
    return kv.passtimes(*({"LastUpdateTimeStamp": stamp, **row} for row in rows), published=stamp)


def departure(
    journey: int,
    line: str,
    destination: str,
    planned: str,
    expected: str = "",
    status: str = "DRIVING",
    **columns: str,
) -> dict[str, str | None]:
    """Return a row of KV8. planned, expected: HH:MM; expected is planned by default."""
    expected = f"{expected or planned}:00"
    return {
        "OperationDate": "2026-01-15",
        "TimingPointCode": _STATION,
        "LinePlanningNumber": line,
        "JourneyNumber": str(journey),
        "DestinationCode": destination,
        "TargetArrivalTime": f"{planned}:00",
        "TargetDepartureTime": f"{planned}:00",
        "ExpectedArrivalTime": expected,
        "ExpectedDepartureTime": expected,
        "TripStopStatus": status,
        **columns,
    }


_STOPS = {_STATION: "Station", _PLANNED: "Oude Haven", _CANCELLED: "Raadhuisplein", _NONE: "Strandpaviljoen"}
_DESTINATIONS = {
    "zee": "Zeedijk",
    "uni": "Universiteit via Centrum",
    "haven": "Oude Haven",
    "ziek": "Ziekenhuis",
    "dorp": "Bovendorp",
    "nacht": "Burgemeester van Rijckevorselplein",
}
_LINES = {
    "1": ("B5121B", "FFFFFF"),
    "2": ("00639A", "FFFFFF"),
    "7": ("F6C900", None),
    "35": ("3F7D20", "FFFFFF"),
    "N88": ("1D1D3B", "FFE45C"),
    "300": (None, None),
}
_COLORED = [*kv.TABLES["LINE"], "LineIcon", "LineColor", "LineTextColor"]


def _planned(journey: int, line: str, destination: str, time: str) -> kv.Row:
    times = {"TargetArrivalTime": f"{time}:00", "TargetDepartureTime": f"{time}:00"}
    return {
        "LinePlanningNumber": line,
        "JourneyNumber": str(journey),
        "DestinationCode": destination,
        "UserStopCode": "u2",
        **times,
    }


WATERDORP = (
    kv.message(
        "KV7turbo_planning",
        kv.table(
            "TIMINGPOINT",
            [
                {"TimingPointCode": code, "TimingPointName": f"Waterdorp, {name}", "TimingPointTown": "Waterdorp"}
                for code, name in _STOPS.items()
            ],
        ),
        kv.table("USERTIMINGPOINT", [{"UserStopCode": "u2", "TimingPointCode": _PLANNED}]),
        kv.table(
            "DESTINATION",
            [{"DestinationCode": code, "DestinationName50": name} for code, name in _DESTINATIONS.items()],
        ),
        kv.table(
            "LINE",
            [
                {"LinePlanningNumber": line, "LinePublicNumber": line, "LineColor": color, "LineTextColor": text}
                for line, (color, text) in _LINES.items()
            ],
            _COLORED,
        ),
        kv.table(
            "LOCALSERVICEGROUPPASSTIME",
            [
                _planned(101, "1", "zee", "08:21"),
                _planned(102, "35", "ziek", "08:32"),
                _planned(103, "1", "zee", "08:51"),
                _planned(104, "N88", "nacht", "09:02"),
            ],
        ),
    ),
    kv.calendar("2026-01-15"),
    passtimes(
        departure(1, "1", "zee", "08:15", status="ARRIVED", SideCode="A"),
        departure(2, "2", "uni", "08:20", SideCode="B"),
        departure(3, "35", "ziek", "08:22", "08:26", SideCode="C"),
        departure(4, "7", "haven", "08:25", "08:23", SideCode="A"),
        departure(5, "N88", "nacht", "08:27", status="CANCEL", SideCode="B"),
        departure(6, "300", "dorp", "08:31", SideCode="D", MessageContent="Kleinere bus"),
        departure(7, "2", "uni", "08:35", status="UNKNOWN", SideCode="B"),
        departure(8, "1", "zee", "08:44", status="PLANNED", SideCode="A"),
        departure(11, "35", "ziek", "08:22", status="CANCEL", TimingPointCode=_CANCELLED),
        departure(12, "7", "haven", "08:29", status="CANCEL", TimingPointCode=_CANCELLED),
        departure(13, "35", "ziek", "08:52", TimingPointCode=_CANCELLED),
    ),
    kv.general_message(
        {
            "MessageCodeDate": "2026-01-15",
            "TimingPointCode": _STATION,
            "MessageContent": "Lijn N88 rijdt tot vrijdag niet. Neem lijn 2, en stap over op de Universiteit.",
            "MessageStartTime": "2026-01-15T06:00:00+01:00",
            "MessageTimeStamp": "2026-01-15T06:00:00+01:00",
        },
        published="2026-01-15T08:14:00+01:00",
    ),
)
"""The messages: the timetable, and the live data at this time of the morning."""
