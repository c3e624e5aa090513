"""Boards by TimingPointCode, with freshness and request collapsing."""

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

_Form = TypeVar("_Form", bound=Sized)


class Entry:
    """A board in the cache, with the forms in which it was rendered."""

    __slots__ = ("_forms", "board", "is_current", "size")

    def __init__(self, board: Board) -> None:
        self.board = board
        self.size = 0
        """Bytes of all forms."""
        self.is_current = True
        """Whether the entry is still in the cache."""
        self._forms: dict[object, Sized] = {}


class BoardCache:
    """Boards by TimingPointCode; concurrent misses of a stop share one request to the source.

    An entry holds its board's rendered forms, which saves 190 us a request for 20 departures (docs/performance.md).
    The numbers of entries, bytes and pending requests are bounded by the settings; the least recently used entry is
    evicted, by an OrderedDict of our own: a look-up takes 0.09 us in place of 0.28 with LRUCache of cachetools. An
    entry is invalid when a newer board arrives, or when it is older than the stale limit.
    """

    log = Logger()

    def __init__(
        self, source: IDepartureSource, clock: IReactorTime, limits: CacheSettings = CacheSettings()
    ) -> None:
        self._source = source
        self._clock = clock
        self.limits = limits
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self.bytes = 0
        """Of all rendered forms."""
        self.last_requested = ""
        """The stop whose board was received last."""
        self.evicted = 0
        """Boards evicted to make room before they were too old."""
        # The waiters of each pending request; a dict is an ordered set here, so that one of thousands leaves at once.
        self._pending: dict[str, dict[Deferred[Entry], None]] = {}
        source.listen(self._on_board)

    def board(self, code: str) -> tuple[Result, Entry | Deferred[Entry]]:
        """Return the cache's result for a stop, and its entry or a Deferred of it that may fail with NoBoard.

        Cancelling the Deferred ends this wait; the pending request continues for the other waiters.
        """
        if (fresh := self.fresh(code)) is not None:
            return "hit", fresh
        entry = self._entries.get(code)
        if entry is not None and 0 <= self.age(entry) <= self.limits.stale:
            self._entries.move_to_end(code)
            if code not in self._pending and len(self._pending) < self.limits.flights:
                self._start_request(code)
            return "stale", entry
        result: Result = "joined" if code in self._pending else "miss"
        if result == "miss" and len(self._pending) >= self.limits.flights:
            return result, fail(Busy(f"{self.limits.flights} requests are pending"))
        waiter: Deferred[Entry] = Deferred(lambda cancelled: waiters.pop(cancelled, None))
        waiters = self._pending.setdefault(code, {})
        waiters[waiter] = None
        if result == "miss":
            self._start_request(code)
        return result, waiter

    def fresh(self, code: str) -> Entry | None:
        """Return a stop's entry if it is fresh."""
        entry = self._entries.get(code)
        if entry is None or not 0 <= self._clock.seconds() - entry.board.received_at <= self.limits.fresh:
            return None
        self._entries.move_to_end(code)
        return entry

    @property
    def entries(self) -> int:
        """The number of boards."""
        return len(self._entries)

    @property
    def pending(self) -> dict[str, int]:
        """The stops with a pending request, each with its number of waiters."""
        return {code: len(waiters) for code, waiters in self._pending.items()}

    def age(self, entry: Entry) -> float:
        """Return an entry's age in seconds; below 0 after the clock was set back."""
        return self._clock.seconds() - entry.board.received_at

    def peek(self, code: str) -> Entry | None:
        """Return a stop's entry, however old; this neither requests it nor counts as its use."""
        return self._entries.get(code)

    def purge(self, code: str) -> bool:
        """Remove a stop's board; return whether there was one."""
        known = code in self._entries
        self._remove(code)
        return known

    def put(self, board: Board) -> Entry:
        """Store a board in place of the stop's last one; return its entry."""
        self._remove(board.code)
        entry = self._entries[board.code] = Entry(board)
        self._shrink()
        return entry

    def boards(self) -> list[Board]:
        """Return all boards."""
        return [entry.board for entry in self._entries.values()]

    def rendered(self, entry: Entry, form: object, render: Callable[[Board], _Form]) -> _Form:
        """Return an entry's board in a form, which is rendered once and stored beside the board.

        form: the key of the form; one key always has the same function. A form that is larger than all together may
        be is not stored.
        """
        stored: _Form | None = entry._forms.get(form)  # type: ignore[assignment]  # the key determines the type
        if stored is not None:
            return stored
        rendered = render(entry.board)
        if len(rendered) <= self.limits.bytes:
            entry._forms[form] = rendered
            if self._entries.get(entry.board.code) is entry:
                entry.size += len(rendered)
                self.bytes += len(rendered)
                self._shrink()
        return rendered

    def _on_board(self, board: Board) -> None:
        """Store a board that arrived late, and serve the waiters of another request for its stop."""
        entry = self.put(board)
        self._serve(self._pending.get(board.code, {}), entry)

    def _start_request(self, code: str) -> None:
        """Request a board from the source, for all waiters there are when it arrives."""
        self._pending.setdefault(code, {})
        entry: Deferred[Entry] = maybeDeferred(self._source.board, code).addCallbacks(
            self.put, lambda failure: self._fallback(failure, code)
        )
        entry.addBoth(self._resolve, code)

    def _fallback(self, failure: Failure, code: str) -> Entry | Failure:
        """Return the last board when the source fails, if it is within the stale limit; else the failure."""
        if not failure.check(NoBoard):
            self.log.failure("The source failed for {code}", failure, code=code)
        entry = self._entries.get(code)
        return entry if entry is not None and 0 <= self.age(entry) <= self.limits.stale else failure

    def _resolve(self, result: Entry | Failure, code: str) -> None:
        if isinstance(result, Entry):
            self.last_requested = code
        self._serve(self._pending.pop(code), result)

    def _serve(self, waiters: dict[Deferred[Entry], None], result: Entry | Failure) -> None:
        waiting = list(waiters)
        waiters.clear()
        for waiter in waiting:
            if waiter.called:
                continue  # cancelled by a waiter that was served before
            if isinstance(result, Entry):
                waiter.callback(result)
            else:
                waiter.errback(result)

    def _remove(self, code: str) -> None:
        entry = self._entries.pop(code, None)
        if entry is not None:
            entry.is_current = False
            self.bytes -= entry.size

    def _shrink(self) -> None:
        """Evict the least recently used entries while there are too many or too large ones, and the too old ones."""
        while self._entries:
            code, entry = next(iter(self._entries.items()))
            is_over = len(self._entries) > self.limits.entries or self.bytes > self.limits.bytes
            if self.age(entry) <= self.limits.stale:
                if not is_over:
                    return
                self.evicted += 1
            self._remove(code)
