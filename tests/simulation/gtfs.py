"""A server of GTFS files, one a day with an index, that also sends what is no file, or only a part of one."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from email.utils import formatdate
from random import Random
from typing import TYPE_CHECKING

from tests.planning.files import call, dates, tables, zipped
from tests.simulation.feed import GTFS_DESTINATIONS, LEG, LEVELS, LINES, NAMES, ROUTES, clock, starts
from tests.simulation.gateway import ZONE
from tests.simulation.http_client import Message, Reader, Wire
from tests.simulation.network import ListeningSocket

if TYPE_CHECKING:
    from tests.simulation.world import World

HOST = "10.0.3.1"
URL = f"http://{HOST}:80/govi/"
DAYS = 4
"""Operating dates of a file, from the day before its own."""

MODES = ("missing", "html", "truncated", "garbage", "yesterday", "ancient", "partial", "silent", "slow", "reset")
"""The ways in which the server misbehaves, each for a while."""


def make_file(day: date, lines: list[str]) -> bytes:
    """Return the file of a day with some lines."""
    trips, calls = [], []
    for line in lines:
        for number, start in starts(line):
            trip = f"{LINES[line]}|{line}|{LEVELS[line]}|{number}|0"
            trips.append(
                {"route_id": line, "service_id": "1", "trip_id": trip, "trip_headsign": GTFS_DESTINATIONS[line]}
            )
            calls += [call(trip, code, clock(start + LEG * n), n) for n, code in enumerate(ROUTES[line])]
    return zipped(
        tables(
            stops=[{"stop_id": code, "stop_name": f"Dorp, oude {name}"} for code, name in NAMES.items()],
            routes=[
                {"route_id": line, "agency_id": LINES[line], "route_short_name": line[-2:], "route_long_name": line}
                for line in lines
            ],
            calendar_dates=dates(*days_of(day)),
            trips=trips,
            stop_times=calls,
        )
    )


def days_of(day: date) -> list[date]:
    """Return the operating dates of the file of a day."""
    return [day + timedelta(n - 1) for n in range(DAYS)]


class GtfsServer:
    """The server. mode: how it misbehaves, "" if it does not."""

    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self.random = random
        self.mode = ""
        self.files: dict[tuple[date, bool], bytes] = {}
        listening = ListeningSocket(world.network, HOST)
        listening.bind(("", 80))
        listening.watchers.append(lambda: self._accept(listening))

    def _accept(self, listening: ListeningSocket) -> None:
        while listening.queue:
            wire = Wire(listening.accept()[0])
            wire.on_data = Reader(lambda message, wire=wire: self._requested(wire, message)).feed  # type: ignore[misc]
            wire.on_end = wire.close
            wire.begin()

    def _requested(self, wire: Wire, message: Message) -> None:
        path = message.first_line.split(" ")[1]
        mode = self.mode
        self.world.event("gtfs", f"{path} {mode or 'served'}")
        today = datetime.fromtimestamp(self.world.scheduler.now, ZONE).date()
        if mode == "silent":
            return
        if mode == "reset":
            wire.abort()
        elif mode == "missing":
            self._respond(wire, "404 Not Found", b"<html>none</html>")
        elif path == "/govi/":
            age = {"yesterday": 1, "ancient": 9}.get(mode, 0)
            names = [f"gtfs-kv7-{today - timedelta(n):%Y%m%d}.zip" for n in range(age, age + 3)]
            body = "".join(f'<a href="{name}">{name}</a>' for name in ["../", *names])
            self._respond(wire, "200 OK", f"<html>{body}</html>".encode(), {"Content-Type": "text/html"})
        else:
            day = datetime.strptime(path[-12:-4], "%Y%m%d").date()
            self._send_file(wire, message, day, mode)

    def _send_file(self, wire: Wire, message: Message, day: date, mode: str) -> None:
        modified = formatdate(datetime(day.year, day.month, day.day, 3, tzinfo=ZONE).timestamp(), usegmt=True)
        if message.fields.get("if-modified-since") == modified:
            self._respond(wire, "304 Not Modified", b"", {"Last-Modified": modified})
            return
        body = self.file(day, mode == "partial")
        if mode == "html":
            body = b"<html>Maintenance</html>"
        elif mode == "garbage":
            body = body[: len(body) // 2] + self.random.randbytes(len(body) // 2)
        if mode == "truncated":
            wire.send(f"HTTP/1.1 200 OK\r\nContent-Length: {2 * len(body)}\r\n\r\n".encode() + body)
            wire.half_close()
        elif mode == "slow":
            wire.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nLast-Modified: {modified}\r\n\r\n".encode())
            for n in range(20):
                size = len(body) // 20 + 1
                self.world.scheduler.after(3.0 * n, wire.send, body[n * size : (n + 1) * size])
        else:
            self._respond(wire, "200 OK", body, {"Last-Modified": modified})

    def _respond(self, wire: Wire, status: str, body: bytes, fields: dict[str, str] | None = None) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in (fields or {}).items())
        wire.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body)

    def file(self, day: date, is_partial: bool) -> bytes:
        """Return the file of a day, or one that lacks an operator."""
        key = day, is_partial
        if key not in self.files:
            self.files[key] = make_file(day, [line for line in LINES if not (is_partial and LINES[line] == "KUST")])
        return self.files[key]

    def compiled(self, source: bytes) -> None:
        """The program has compiled a file: it knows its departures."""
        now = self.world.scheduler.now
        for (day, is_partial), content in self.files.items():
            if content == source:
                for line in LINES:
                    if not (is_partial and LINES[line] == "KUST"):
                        self.world.model.plan("gtfs", line, days_of(day), now)
