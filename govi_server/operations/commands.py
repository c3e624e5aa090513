"""The commands of the manhole, with which operators inspect and control the running program."""

import inspect
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import InvalidLogLevelError, LogLevel

from govi_server.departures.board import Board
from govi_server.departures.query import DEFAULT_HORIZON
from govi_server.departures.source import NoBoard
from govi_server.departures.timing_point import is_timing_point_code
from govi_server.kv78turbo.feed import Feed
from govi_server.operations.components import Components, GatewayComponents
from govi_server.operations.log_levels import LogLevels
from govi_server.operations.status import Status
from govi_server.runtime.text import pluralize, printable

MAX_ROWS = 20
"""Rows of a table that are listed."""

DRAIN_DELAY_SECONDS = 0.5
"""Time for the result of drain() to reach the client before draining closes the session."""


class CommandOutput(str):
    """The result of a command, which a prompt shows as it is, not as a literal."""

    def __repr__(self) -> str:
        return str(self)


class ManholeCommands:
    """The commands: each public method except all(). The first line of its docstring is its help.

    shut_down: shuts the program down, as SIGTERM does.
    """

    def __init__(
        self,
        components: Components,
        status: Status,
        levels: LogLevels,
        clock: IReactorTime,
        shut_down: Callable[[], object],
    ) -> None:
        self._components = components
        self._status = status
        self._levels = levels
        self._clock = clock
        self._shut_down = shut_down
        self._is_draining = False

    def all(self) -> dict[str, Callable[..., object]]:
        """Return the commands by name."""
        methods = inspect.getmembers(type(self), inspect.isfunction)
        return {name: getattr(self, name) for name, _ in methods if name != "all" and not name.startswith("_")}

    def help(self, command: object = None) -> CommandOutput:
        """List the commands; help(command) describes one of them."""
        if command is not None:  # unlike pydoc, which would start a pager that waits for the server's keyboard
            return CommandOutput(inspect.getdoc(command) or "no help available")
        rows = [
            (name + str(inspect.signature(method)).partition(" ->")[0].replace("'", ""), _first_line(method))
            for name, method in self.all().items()
        ]
        return _table(rows, len(rows))

    def status(self) -> CommandOutput:
        """Show the health and its reasons, connections, sources and incidents."""
        status = self._status.json()
        rows = [
            ("health", f"{status['verdict']} since {status['since']}"),
            *(("", reason) for reason in status["why"]),
            ("version", f"{status['version']}, started {status['started']}"),
            ("connections", f"{status['connections']['open']} of {status['connections']['limit']}"),
        ]
        for name, gateway in status["gateways"].items():
            requests = pluralize(gateway["flights"], "gateway request")
            boards = pluralize(gateway["cache"]["boards"], "board")
            rows.append((f"/{name}", f"breaker {gateway['breaker']}, {requests} in flight, {boards}"))
        if feed := status["feed"]:
            rows.append(("feed", f"{feed['state']}, age {feed['age']} s, {feed['passes']} passing times"))
        for component, counts in status["incidents"].items():
            rows.append((component, ", ".join(f"{kind}: {n}" for kind, n in counts.items())))
        return _table(rows, len(rows))

    def flights(self) -> CommandOutput:
        """List the gateway requests in flight, with the number of clients that wait for each."""
        rows = [
            (f"/{name}", code, f"{waiting} waiting")
            for name, gateway in self._components.gateways.items()
            for code, waiting in sorted(gateway.cache.pending.items(), key=lambda item: -item[1])
        ]
        return _table(rows) if rows else CommandOutput("no gateway requests in flight")

    def stop(self, code: str) -> CommandOutput:
        """Show the boards of a stop in memory, stop("31000226"), and their ages; sends no request."""
        if error := _code_error(code):
            return error
        texts = []
        for name, gateway in self._components.gateways.items():
            entry = gateway.cache.peek(code)
            if entry is None:
                texts.append(f"/{name}: {code} is not cached")
            else:
                texts.append(f"/{name}: {_board(entry.board, gateway.cache.age(entry))}")
        if self._components.feed is not None:
            texts.append(_feed_board(self._components.feed, code))
        return CommandOutput("\n".join(texts))

    def slow(self) -> CommandOutput:
        """List the stops with the longest waits of the last hour."""
        slowest = self._status.json()["stops"]["slowest_ms"]
        rows = [(stop, f"{milliseconds} ms") for stop, milliseconds in slowest.items()]
        return _table(rows) if rows else CommandOutput("no waits for a stop in the last hour")

    def breaker(self) -> CommandOutput:
        """Show the circuit breaker of each gateway: closed (normal), open (no requests) or half-open (probing).

        A breaker cannot be closed by hand: a probe is sent every few seconds, and closes it if it succeeds.
        """
        rows = [(f"/{name}", gateway.breaker.state) for name, gateway in self._components.gateways.items()]
        return _table(rows) if rows else CommandOutput("no gateway is configured")

    def purge(self, code: str) -> CommandOutput:
        """Remove a stop's boards from the caches: the next client waits for a new board."""
        if error := _code_error(code):
            return error
        purged = [f"/{name}" for name, gateway in self._components.gateways.items() if gateway.cache.purge(code)]
        return CommandOutput(f"{code}: removed from {', '.join(purged)}" if purged else f"{code}: not cached")

    def refresh(self, code: str) -> CommandOutput | Deferred[CommandOutput]:
        """Request a stop from the gateways now, bypassing the cache; show and cache the boards."""
        if error := _code_error(code):
            return error
        if not self._components.gateways:
            return CommandOutput("no gateway is configured: the live feed needs no requests")
        text: Deferred[CommandOutput] = Deferred.fromCoroutine(self._refresh(code))
        # A prompt shows a fired Deferred as its address, so return the result if it is available.
        result = getattr(text, "result", None)
        return result if isinstance(result, CommandOutput) else text

    def log_level(self, namespace: str | None = None, level: str = "info") -> CommandOutput:
        """Set the log level of a namespace, log_level("twisted.conch", "debug"); "" is the default for all.

        Levels are debug, info, warn, error and critical. A level also applies to nested namespaces, such as
        govi_server.kv55.gateway in govi_server.kv55, until the program ends. Without arguments: list the levels.
        """
        if namespace is not None:
            try:
                self._levels.set(namespace, level)
            except InvalidLogLevelError:
                known = ", ".join(constant.name for constant in LogLevel.iterconstants())
                return CommandOutput(f"invalid log level {level!r} (expected {known})")
        levels = {**self._levels.configured, **self._levels.levels}.items()
        return _table([("(all others)", "info"), *((name or "(all)", level) for name, level in levels)])

    def drain(self) -> CommandOutput:
        """Shut down as SIGTERM does: stop listening, finish requests in flight, close, exit with status 0.

        A supervisor may start the program again, as systemd does with Restart=always.
        """
        connections = self._components.figures.connections
        if self._is_draining or self._components.is_draining:
            return CommandOutput(f"already draining; {connections} connections left")
        self._is_draining = True
        self._clock.callLater(DRAIN_DELAY_SECONDS, self._shut_down)
        return CommandOutput(f"draining {connections} connections; new ones are refused")

    async def _refresh(self, code: str) -> CommandOutput:
        texts = []
        for name, gateway in self._components.gateways.items():
            texts.append(f"/{name}: {await self._request(gateway, code)}")
        return CommandOutput("\n".join(texts))

    async def _request(self, gateway: GatewayComponents, code: str) -> str:
        began = self._clock.seconds()
        try:
            entry = await gateway.cache.refresh(code, gateway.probe)
        except NoBoard as error:
            return f"{code}: no board ({printable(str(error))})"
        seconds = self._clock.seconds() - began
        return f"received after {seconds:.1f} s: {_board(entry.board, gateway.cache.age(entry))}"


def _first_line(method: object) -> str:
    return (inspect.getdoc(method) or "").partition("\n")[0]


def _code_error(code: object) -> CommandOutput | None:
    """Return an error text if a value is not a TimingPointCode, else None."""
    if isinstance(code, str) and is_timing_point_code(code):
        return None
    return CommandOutput(f'invalid TimingPointCode {code!r} (expected digits in quotes, such as "31000226")')


def _board(board: Board, age: float) -> str:
    rows = [
        (
            trip.line_public_number or trip.line_planning_number,
            trip.destination_name,
            trip.target_departure_time,
            trip.expected_departure_time,
            trip.trip_stop_status,
        )
        for trip in board.trips
    ]
    summary = f"{board.code}, {len(rows)} departures, {age:.0f} s old"
    return f"{summary}\n{_table(rows)}" if rows else summary


def _feed_board(feed: Feed, code: str) -> str:
    """Return the board of a stop from the live feed, as text."""
    if not feed.is_known_stop(code):
        return f"feed: {code} is unknown"
    board = feed.boards.board(code, DEFAULT_HORIZON)
    freshness, age = feed.freshness(board)
    rows = [
        (
            feed.timetable.public_number(passtime),
            feed.timetable.destination(passtime),
            passtime.target_departure_time or passtime.target_arrival_time,
            passtime.expected_departure_time or passtime.expected_arrival_time,
            passtime.reported_status,
        )
        for passtime in board.passtimes
    ]
    summary = (
        f"feed: {code} is {freshness}, {age:.0f} s old, {len(rows)} passing times, {len(board.messages)} messages"
    )
    return f"{summary}\n{_table(rows)}" if rows else summary


def _table(rows: Sequence[Sequence[object]], limit: int = MAX_ROWS) -> CommandOutput:
    texts = [["-" if cell is None else printable(str(cell)) for cell in row] for row in rows[:limit]]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts
    ]
    if len(rows) > limit:
        lines.append(f"  and {len(rows) - limit} more")
    return CommandOutput("\n".join(lines))
