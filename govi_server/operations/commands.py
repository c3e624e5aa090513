"""What an operator does with the running program, by name."""

import inspect
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import InvalidLogLevelError, LogLevel

from govi_server.departures.board import Board
from govi_server.departures.query import DEFAULT_HORIZON
from govi_server.departures.source import NoBoard
from govi_server.departures.timing_point import is_timing_point_code
from govi_server.operations.components import Components, GatewayComponents
from govi_server.operations.log_levels import LogLevels
from govi_server.operations.status import Status

MOST = 20
"""Lines of a table."""

TO_SAY = 0.5
"""Seconds that the answer of drain() has to go out before the end begins, which closes the session, too."""


class Text(str):
    """What a verb says: a prompt shows it as it is, not as a literal."""

    def __repr__(self) -> str:
        return str(self)


class ManholeCommands:
    """What an operator does most. Each public method is a verb, and the first line of its docstring its help."""

    def __init__(
        self, parts: Components, status: Status, levels: LogLevels, clock: IReactorTime, end: Callable[[], object]
    ) -> None:
        self._parts = parts
        self._status = status
        self._levels = levels
        self._clock = clock
        self._end = end
        self._ending = False

    def all(self) -> dict[str, Callable[..., object]]:
        """Give the verbs by name."""
        found = inspect.getmembers(type(self), inspect.isfunction)
        return {name: getattr(self, name) for name, _ in found if name != "all" and not name.startswith("_")}

    def help(self, verb: object = None) -> Text:
        """List the verbs; help(verb) tells more of one."""
        if verb is not None:  # and never pydoc's pager, which would wait for a keyboard that the server has not
            return Text(inspect.getdoc(verb) or "nothing is written of it")
        rows = [
            (name + str(inspect.signature(method)).partition(" ->")[0].replace("'", ""), _first_line(method))
            for name, method in self.all().items()
        ]
        return _table(rows, len(rows))

    def status(self) -> Text:
        """How the program is doing: the verdict and why, connections, sources, what went wrong."""
        now = self._status.json()
        rows = [
            ("verdict", f"{now['verdict']} since {now['since']}"),
            *(("", why) for why in now["why"]),
            ("version", f"{now['version']}, started {now['started']}"),
            ("connections", f"{now['connections']['open']} of {now['connections']['limit']}"),
        ]
        for name, source in now["gateways"].items():
            boards = source["cache"]["boards"]
            rows.append((f"/{name}", f"breaker {source['breaker']}, {source['flights']} flights, {boards} boards"))
        if feed := now["feed"]:
            rows.append(("feed", f"{feed['state']}, age {feed['age']} s, {feed['passes']} passes"))
        for where, counts in now["incidents"].items():
            rows.append((where, ", ".join(f"{kind}: {n}" for kind, n in counts.items())))
        return _table(rows, len(rows))

    def flights(self) -> Text:
        """The stops that a gateway is being asked for, with how many clients wait for each."""
        rows = [
            (f"/{name}", code, f"{waiting} waiting")
            for name, source in self._parts.gateways.items()
            for code, waiting in sorted(source.cache.pending.items(), key=lambda one: -one[1])
        ]
        return _table(rows) if rows else Text("nothing is being asked for")

    def stop(self, code: str) -> Text:
        """What is known of a stop, stop("31000226"): its boards in memory with their ages; asks for nothing."""
        if wrong := _wrong(code):
            return wrong
        shown = []
        for name, source in self._parts.gateways.items():
            entry = source.cache.peek(code)
            if entry is None:
                shown.append(f"/{name}: {code} is not in the cache")
            else:
                shown.append(f"/{name}: {_board(entry.board, source.cache.age(entry))}")
        if self._parts.feed is not None:
            shown.append(self._live(code))
        return Text("\n".join(shown))

    def slow(self) -> Text:
        """The stops that clients waited longest for in the last hour."""
        slowest = self._status.json()["stops"]["slowest_ms"]
        rows = [(stop, f"{milliseconds} ms") for stop, milliseconds in slowest.items()]
        return _table(rows) if rows else Text("nobody waited for a stop in the last hour")

    def breaker(self) -> Text:
        """Whether each gateway is asked: closed is well, open is left alone, half-open is being tried.

        There is no way to close one by hand: it tries by itself every few seconds, and a try is what closes it.
        """
        rows = [(f"/{name}", source.breaker.state) for name, source in self._parts.gateways.items()]
        return _table(rows) if rows else Text("no gateway is asked")

    def purge(self, code: str) -> Text:
        """Forget a stop's cached boards: who asks next waits for a new one."""
        if wrong := _wrong(code):
            return wrong
        gone = [f"/{name}" for name, source in self._parts.gateways.items() if source.cache.purge(code)]
        return Text(f"{code}: forgotten by {', '.join(gone)}" if gone else f"{code}: in no cache")

    def refresh(self, code: str) -> Text | Deferred[Text]:
        """Ask the gateways for a stop now, past the cache, and show what comes; it is cached, too."""
        if wrong := _wrong(code):
            return wrong
        if not self._parts.gateways:
            return Text("no gateway is asked: the live feed comes by itself")
        asked: Deferred[Text] = Deferred.fromCoroutine(self._refresh(code))
        # A prompt shows a Deferred that has fired by its address: what is there at once is better said at once.
        said = getattr(asked, "result", None)
        return said if isinstance(said, Text) else asked

    def log_level(self, namespace: str | None = None, level: str = "info") -> Text:
        """Set what is written of a namespace, log_level("twisted.conch", "debug"); "" is the default for all.

        Levels are debug, info, warn, error and critical. It holds for all namespaces below, such as
        govi_server.kv55.gateway of govi_server.kv55, and until the program ends. Without arguments: what was set.
        """
        if namespace is not None:
            try:
                self._levels.set(namespace, level)
            except InvalidLogLevelError:
                known = ", ".join(constant.name for constant in LogLevel.iterconstants())
                return Text(f"{level!r} is no level; there are {known}")
        return _table(
            [("(all others)", "info"), *((name or "(all)", said) for name, said in self._levels.said.items())]
        )

    def drain(self) -> Text:
        """End the program as SIGTERM does: listen no more, finish the requests in flight, close, exit with 0.

        Whether it starts again is for what watches it: systemd does with Restart=always.
        """
        in_flight = len(self._parts.server.connections)
        if self._ending or self._parts.server.draining:
            return Text(f"it ends already: {in_flight} connections are left")
        self._ending = True
        self._clock.callLater(TO_SAY, self._end)
        return Text(f"it ends; {in_flight} connections are finished first, and new ones are refused")

    def _live(self, code: str) -> str:
        feed = self._parts.feed
        assert feed is not None
        if not feed.is_known_stop(code):
            return f"feed: {code} is not known"
        board = feed.boards.board(code, DEFAULT_HORIZON)
        condition, age = feed.freshness(board)
        rows = [
            (
                feed.timetable.public_number(one),
                feed.timetable.destination(one),
                one.target_departure_time or one.target_arrival_time,
                one.expected_departure_time or one.expected_arrival_time,
                one.trip_stop_status,
            )
            for one in board.passtimes
        ]
        said = (
            f"feed: {code} is {condition}, said {age:.0f} s ago, {len(rows)} passes, {len(board.messages)} messages"
        )
        return f"{said}\n{_table(rows)}" if rows else said

    async def _refresh(self, code: str) -> Text:
        shown = []
        for name, source in self._parts.gateways.items():
            shown.append(f"/{name}: {await self._ask(source, code)}")
        return Text("\n".join(shown))

    async def _ask(self, source: GatewayComponents, code: str) -> str:
        begun = self._clock.seconds()
        try:
            board = await source.breaker.board(code)
        except NoBoard as error:
            return f"{code}: no board: {clean(error)}"
        entry = source.cache.put(board)
        seconds = self._clock.seconds() - begun
        return f"answered after {seconds:.1f} s: {_board(board, source.cache.age(entry))}"


def _first_line(method: object) -> str:
    return (inspect.getdoc(method) or "").partition("\n")[0]


def _wrong(code: object) -> Text | None:
    """Say so if something cannot be a stop."""
    if isinstance(code, str) and is_timing_point_code(code):
        return None
    return Text(f'{code!r} is no TimingPointCode: digits in quotes, such as "31000226"')


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
    said = f"{board.code}, {len(rows)} departures, {age:.0f} s old"
    return f"{said}\n{_table(rows)}" if rows else said


def clean(value: object) -> str:
    """Make a text fit for a terminal: what sources send may hold what would steer it."""
    text = "-" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def _table(rows: Sequence[Sequence[object]], most: int = MOST) -> Text:
    texts = [[clean(cell) for cell in row] for row in rows[:most]]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts
    ]
    if len(rows) > most:
        lines.append(f"  and {len(rows) - most} more")
    return Text("\n".join(lines))
