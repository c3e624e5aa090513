"""The cache of boards: of a board it knows nothing but its code and that it has an age."""

from collections import OrderedDict
from collections.abc import Callable, Sized
from typing import Literal, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from govi_server.departures.board import Board
from govi_server.departures.source import Busy, IDepartureSource, NoBoard
from govi_server.settings import CacheSettings

Result = Literal["hit", "stale", "joined", "miss"]

_Made = TypeVar("_Made", bound=Sized)


class Entry:
    """A board in the cache, with the forms it was rendered in."""

    __slots__ = ("_made", "board", "is_current", "size")

    def __init__(self, board: Board) -> None:
        self.board = board
        self.size = 0
        self.is_current = True
        """Whether it is still in the cache."""
        self._made: dict[object, Sized] = {}


class BoardCache:
    """Keeps boards, and asks the source once for everybody who misses the same one."""

    log = Logger()

    def __init__(
        self, source: IDepartureSource, clock: IReactorTime, limits: CacheSettings = CacheSettings()
    ) -> None:
        self._source = source
        self._clock = clock
        self.limits = limits
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self.bytes = 0
        """Of all renderings that are kept."""
        self.last_asked = ""
        """The stop whose board was told last."""
        self.evicted = 0
        """Boards that went before they were too old, to make room."""
        # Who waits for which flight; a dict is an ordered set here, so that one of thousands leaves at once.
        self._flights: dict[str, dict[Deferred[Entry], None]] = {}
        source.listen(self._hear)

    def board(self, code: str) -> tuple[Result, Entry | Deferred[Entry]]:
        """Look a stop up: what the cache has for it, and the entry, or a Deferred of it that may fail with NoBoard.

        Cancelling the Deferred leaves the flight to the others who wait for it.
        """
        if (fresh := self.fresh(code)) is not None:
            return "hit", fresh
        entry = self._entries.get(code)
        if entry is not None and 0 <= self.age(entry) <= self.limits.stale:
            self._entries.move_to_end(code)
            if code not in self._flights and len(self._flights) < self.limits.flights:
                self._fly(code)
            return "stale", entry
        result: Result = "joined" if code in self._flights else "miss"
        if result == "miss" and len(self._flights) >= self.limits.flights:
            return result, fail(Busy(f"{self.limits.flights} questions are on their way"))
        waiting: Deferred[Entry] = Deferred(lambda cancelled: waiters.pop(cancelled, None))
        waiters = self._flights.setdefault(code, {})
        waiters[waiting] = None
        if result == "miss":
            self._fly(code)
        return result, waiting

    def fresh(self, code: str) -> Entry | None:
        """Look a stop up, and give its entry if that is a hit."""
        entry = self._entries.get(code)
        if entry is None or not 0 <= self._clock.seconds() - entry.board.received_at <= self.limits.fresh:
            return None
        self._entries.move_to_end(code)
        return entry

    @property
    def entries(self) -> int:
        """How many boards are kept."""
        return len(self._entries)

    @property
    def flights(self) -> dict[str, int]:
        """The stops that are being asked for, each with how many wait for it."""
        return {code: len(waiters) for code, waiters in self._flights.items()}

    def age(self, entry: Entry) -> float:
        """Tell an entry's age in seconds; below 0 after the clock was set back."""
        return self._clock.seconds() - entry.board.received_at

    def peek(self, code: str) -> Entry | None:
        """Look at what is kept of a stop, however old; nobody is asked, and it is no use of it."""
        return self._entries.get(code)

    def purge(self, code: str) -> bool:
        """Forget a stop's board; tell whether there was one."""
        known = code in self._entries
        self._remove(code)
        return known

    def put(self, board: Board) -> Entry:
        """Keep a board in the place of the stop's last one."""
        self._remove(board.code)
        entry = self._entries[board.code] = Entry(board)
        self._shrink()
        return entry

    def boards(self) -> list[Board]:
        """List the boards that are kept."""
        return [entry.board for entry in self._entries.values()]

    def rendered(self, entry: Entry, form: object, render: Callable[[Board], _Made]) -> _Made:
        """Give the rendering of an entry in a form, made once and kept beside its board.

        form: what the rendering is known by; always rendered by the same function. One that is larger than all
        renderings together may be is not kept.
        """
        made: _Made | None = entry._made.get(form)  # type: ignore[assignment]  # the form tells the type
        if made is None:
            made = render(entry.board)
            if len(made) > self.limits.bytes:
                return made
            entry._made[form] = made
            if self._entries.get(entry.board.code) is entry:
                entry.size += len(made)
                self.bytes += len(made)
                self._shrink()
        return made

    def _hear(self, board: Board) -> None:
        """Keep a board that came by itself, and give it to those who wait for another flight of its stop."""
        entry = self.put(board)
        self._serve(self._flights.get(board.code, {}), entry)

    def _fly(self, code: str) -> None:
        """Ask the source for a board, for everybody who waits for it by the time it comes."""
        self._flights.setdefault(code, {})
        entry: Deferred[Entry] = maybeDeferred(self._source.board, code).addCallbacks(
            self.put, lambda failure: self._fallback(failure, code)
        )
        entry.addBoth(self._land, code)

    def _fallback(self, failure: Failure, code: str) -> Entry | Failure:
        """Serve the board there is when the source fails, if it is young enough."""
        if not failure.check(NoBoard):
            self.log.failure("The source failed for {code}", failure, code=code)
        entry = self._entries.get(code)
        return entry if entry is not None and 0 <= self.age(entry) <= self.limits.stale else failure

    def _land(self, result: Entry | Failure, code: str) -> None:
        if isinstance(result, Entry):
            self.last_asked = code
        self._serve(self._flights.pop(code), result)

    def _serve(self, waiters: dict[Deferred[Entry], None], result: Entry | Failure) -> None:
        everybody = list(waiters)
        waiters.clear()
        for waiting in everybody:
            if waiting.called:
                continue  # one that was called back has cancelled this one
            if isinstance(result, Entry):
                waiting.callback(result)
            else:
                waiting.errback(result)

    def _remove(self, code: str) -> None:
        entry = self._entries.pop(code, None)
        if entry is not None:
            entry.is_current = False
            self.bytes -= entry.size

    def _shrink(self) -> None:
        """Let go of the least recently used while there is too much, and of what is too old to be served."""
        while self._entries:
            code, entry = next(iter(self._entries.items()))
            too_much = len(self._entries) > self.limits.entries or self.bytes > self.limits.bytes
            if self.age(entry) <= self.limits.stale:
                if not too_much:
                    return
                self.evicted += 1
            self._remove(code)
