"""Boards by TimingPointCode, with freshness and request collapsing."""

from collections import OrderedDict
from collections.abc import Callable, Sized
from itertools import islice
from typing import Literal, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from govi_server.departures.board import Board
from govi_server.departures.source import Busy, IDepartureSource, NoBoard
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.settings import CacheSettings

Result = Literal["hit", "stale", "joined", "miss"]

_Form = TypeVar("_Form", bound=Sized)


class Entry:
    """A cached board and its renderings."""

    __slots__ = ("_forms", "board", "era", "is_current", "size")

    def __init__(self, board: Board, era: int) -> None:
        self.board = board
        self.era = era
        """How often the clock had been set back."""
        self.size = board.size
        """Bytes of the board and all renderings."""
        self.is_current = True
        """Whether the entry is still in the cache."""
        self._forms: dict[object, Sized] = {}


class BoardCache:
    """Caches boards by TimingPointCode; concurrent misses for a stop share one request to the source.

    An entry also holds renderings of its board, which saves 190 us per request for 20 departures
    (docs/performance.md). The settings bound the numbers of entries, bytes and pending requests; the least recently
    used entries are evicted first, to make room before anything is stored. An OrderedDict looks up an entry in 0.09
    us, cachetools' LRUCache in 0.28 us. An entry is invalidated by a newer board, when it exceeds
    the stale limit, or when the clock is set back.
    """

    log = Logger()

    def __init__(
        self,
        source: IDepartureSource,
        clock: IReactorTime,
        limits: CacheSettings = CacheSettings(),
        runner: CooperativeRunner | None = None,
    ) -> None:
        self._source = source
        self._clock = clock
        self.limits = limits
        self.runner = runner or CooperativeRunner(clock)
        """Resumes waiting requests, and runs the work on many boards."""
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self.bytes = 0
        """The size of all boards and renderings."""
        self.last_request: tuple[str, float] | None = None
        """The stop and the time of the latest request to the source; it may not exist."""
        self.era = 0
        """How often the clock was set back: the age of boards that were received before is unknown."""
        self.evicted = 0
        """Boards evicted to make room before they expired."""
        # The waiters of each pending request: a dict is an ordered set that removes one of many in constant time.
        self._pending: dict[str, dict[Deferred[Entry], None]] = {}
        self._refreshing: dict[str, list[Deferred[Entry]]] = {}
        """The Deferreds of refresh() for each pending request, which get its failure despite a stale board."""
        source.listen(self._on_board)

    def board(self, code: str) -> tuple[Result, Entry | Deferred[Entry]]:
        """Return the result of looking up a stop, and its entry or a Deferred of it, which may fail with NoBoard.

        Cancelling the Deferred ends this wait only; the pending request continues.
        """
        if (fresh := self.fresh(code)) is not None:
            return "hit", fresh
        entry = self._entries.get(code)
        if entry is not None and 0 <= self.age(entry) <= self.limits.stale:
            self._entries.move_to_end(code)
            if code not in self._pending and len(self._pending) < self.limits.flights:
                self.last_request = code, self._clock.seconds()
                self._start_request(code)
            return "stale", entry
        result: Result = "joined" if code in self._pending else "miss"
        if result == "miss" and len(self._pending) >= self.limits.flights:
            return result, fail(Busy(f"{self.limits.flights} requests are pending"))
        waiter: Deferred[Entry] = Deferred(lambda cancelled: waiters.pop(cancelled, None))
        waiters = self._pending.setdefault(code, {})
        waiters[waiter] = None
        if result == "miss":
            self.last_request = code, self._clock.seconds()
            self._start_request(code)
        return result, waiter

    def refresh(self, code: str, request: Callable[[str], Deferred[Board]]) -> Deferred[Entry]:
        """Request a stop's board, unless a request is pending; return a Deferred of its entry.

        request: requests a new board from the source. Fails with NoBoard even if there is a stale board. For checks:
        a second request for a stop beside that of clients could be answered first, and its board be replaced by the
        older one.
        """
        result: Deferred[Entry] = Deferred()
        self._refreshing.setdefault(code, []).append(result)
        if code not in self._pending:
            self._start_request(code, request)
        return result

    def fresh(self, code: str) -> Entry | None:
        """Return a stop's entry if it is fresh."""
        entry = self._entries.get(code)
        if entry is None or not 0 <= self.age(entry) <= self.limits.fresh:
            return None
        self._entries.move_to_end(code)
        return entry

    def recent(self, n: int) -> list[str]:
        """Return the stops of the boards that were used or received last, at most n, the latest first."""
        return list(islice(reversed(self._entries), n))

    @property
    def entries(self) -> int:
        """The number of boards."""
        return len(self._entries)

    @property
    def pending(self) -> dict[str, int]:
        """The stops with a pending request, each with its number of waiters."""
        return {code: len(waiters) for code, waiters in self._pending.items()}

    def age(self, entry: Entry) -> float:
        """Return an entry's age in seconds; below 0 if it is unknown, because the clock was set back."""
        return self._clock.seconds() - entry.board.received_at if entry.era == self.era else -1.0

    def clock_set_back(self) -> None:
        """Serve no board that was received before: it would be fresh again once the clock has caught up."""
        self.era += 1

    def peek(self, code: str) -> Entry | None:
        """Return a stop's entry of any age, without requesting it or marking it as used."""
        return self._entries.get(code)

    def purge(self, code: str) -> bool:
        """Remove a stop's board; return whether there was one."""
        was_cached = code in self._entries
        self._remove(code)
        return was_cached

    def put(self, board: Board) -> Entry:
        """Store a board, replacing the stop's previous one unless that is newer; return the stop's entry.

        A board larger than the cache is not stored.
        """
        current = self._entries.get(board.code)
        if current is not None and self.age(current) >= 0 and current.board.received_at > board.received_at:
            self._entries.move_to_end(board.code)
            return current  # a late board arrived while the engine's older one was in transit
        self._remove(board.code)
        entry = Entry(board, self.era)
        if entry.size > self.limits.bytes:
            entry.is_current = False
            return entry
        self._make_room(entry.size, 1)
        self._entries[board.code] = entry
        self.bytes += entry.size
        return entry

    def boards(self) -> list[Board]:
        """Return all boards."""
        return [entry.board for entry in self._entries.values()]

    def rendered(self, entry: Entry, form: object, render: Callable[[Board], _Form]) -> _Form:
        """Return a rendering of an entry's board, stored with the entry.

        form: the rendering's key, always used with the same function. A rendering that does not fit into the cache
        with its board is not stored.
        """
        stored: _Form | None = entry._forms.get(form)  # type: ignore[assignment]  # the key determines the type
        if stored is not None:
            return stored
        rendered = render(entry.board)
        if entry.size + len(rendered) <= self.limits.bytes:
            if self._entries.get(entry.board.code) is entry:
                self._entries.move_to_end(entry.board.code)  # or else it would make room for itself
                self._make_room(len(rendered), 0)
            if self._entries.get(entry.board.code) is entry:  # not expired
                self.bytes += len(rendered)
            entry.size += len(rendered)
            entry._forms[form] = rendered
        return rendered

    def _on_board(self, board: Board) -> None:
        """Store a board that arrived late, and serve the waiters of a newer request for its stop."""
        entry = self.put(board)
        self.runner.resume(self._pending.get(board.code, {}), entry)

    def _start_request(self, code: str, request: Callable[[str], Deferred[Board]] | None = None) -> None:
        """Request a board from the source, for all waiters present when it arrives."""
        self._pending.setdefault(code, {})
        entry: Deferred[Entry] = maybeDeferred(request or self._source.board, code).addCallback(self.put)
        entry.addBoth(self._refreshed, code)
        entry.addErrback(self._fallback, code)
        entry.addBoth(self._resolve, code)

    def _refreshed(self, result: Entry | Failure, code: str) -> Entry | Failure:
        for waiting in self._refreshing.pop(code, ()):
            waiting.callback(result)  # a Failure is passed to the errbacks
        return result

    def _fallback(self, failure: Failure, code: str) -> Entry | Failure:
        """Return the stop's entry if it is within the stale limit, else the source's failure."""
        if not failure.check(NoBoard):
            self.log.failure("Stop {code}: unexpected error of the source", failure, code=code)
        entry = self._entries.get(code)
        return entry if entry is not None and 0 <= self.age(entry) <= self.limits.stale else failure

    def _resolve(self, result: Entry | Failure, code: str) -> None:
        self.runner.resume(self._pending.pop(code), result)

    def _remove(self, code: str) -> None:
        entry = self._entries.pop(code, None)
        if entry is not None:
            entry.is_current = False
            self.bytes -= entry.size

    def _make_room(self, size: int, entries: int) -> None:
        """Evict expired entries, and the least recently used ones until so many bytes and entries fit."""
        while self._entries:
            code, entry = next(iter(self._entries.items()))
            fits = len(self._entries) + entries <= self.limits.entries and self.bytes + size <= self.limits.bytes
            if self.age(entry) <= self.limits.stale:
                if fits:
                    return
                self.evicted += 1
            self._remove(code)
