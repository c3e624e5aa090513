"""Run long work in slices, between which the reactor serves other requests.

Work is a generator that yields after each step of at most about a millisecond. All work of a runner shares one slice
per turn of the reactor, so the turn stays short however much work waits. Twisted's cooperate() runs for 10 ms at a
time, and needs a reactor turn for even the shortest work.
"""

import sys
from collections.abc import Callable, Coroutine, Generator, Hashable, Iterable, Iterator
from contextvars import ContextVar
from heapq import merge
from itertools import islice
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.python.failure import Failure

SLICE_SECONDS = 0.002
"""Time that short work, and as long that long work, runs before it returns control to the reactor."""

BUSY_PAUSE = 4 * SLICE_SECONDS
"""Time between two slices of long work while short work waits, so that it gets a fifth of the processor: loading a
timetable must not use half of it at any load."""

IMMEDIATE_SECONDS = 2 * SLICE_SECONDS
"""Time in one turn of the reactor in which little work is done at once: many requests may arrive in it."""

SHORT_STEPS = 300
"""Steps of short work: the board of a stop with a hundred passtimes, or some ten milliseconds."""

STEP_ITEMS = 200
"""Items per step of work that needs a few microseconds for each, such as sorting."""

current_work: ContextVar[str] = ContextVar("current_work", default="")
"""The work that the current coroutine is for, such as the path of its request; named if a turn is slow."""

is_background: ContextVar[bool] = ContextVar("is_background", default=False)
"""Whether no request waits for the work of the current coroutine, which is then done in the slices of long work."""

work_names: dict[int, str] = {}
"""The names of running work, by the id of its frame in named(). The watch over turns reads them in another thread,
where reading a frame's variables can crash the interpreter (CPython 3.11)."""

_T = TypeVar("_T")
_U = TypeVar("_U")


def run_now(steps: Generator[None, None, _T], is_over: Callable[[], bool] = lambda: False) -> _T:
    """Run work without a pause; return its result. Raises MustWait, and closes it, when its time is over."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
        if is_over():
            steps.close()
            raise MustWait


class MustWait(Exception):
    """Work cannot be done at once."""


def named(steps: Iterator[None], name: str) -> Generator[None, None, None]:
    """Run steps that are named in the log if they make a turn slow."""
    frame = id(sys._getframe())
    work_names[frame] = name
    try:
        yield from steps
    finally:
        del work_names[frame]


def map_in_steps(
    function: Callable[[_T], _U], items: Iterable[_T], size: int = STEP_ITEMS
) -> Generator[None, None, list[_U]]:
    """Return the results of a function for each item. size: items per step."""
    results: list[_U] = []
    remaining = iter(items)
    while step := list(islice(remaining, size)):
        results.extend(map(function, step))
        yield
    return results


def sort_in_steps(
    items: list[_T], key: Callable[[_T], Any] | None = None, size: int = STEP_ITEMS
) -> Generator[None, None, list[_T]]:
    """Return sorted items: sorting 60,000 in one step takes 0.1 s. size: items per step."""
    if len(items) <= size:
        return sorted(items, key=key)  # type: ignore[type-var,arg-type]  # items are comparable without a key
    runs = []
    for start in range(0, len(items), size):
        runs.append(sorted(items[start : start + size], key=key))  # type: ignore[type-var,arg-type]
        yield
    merged: Iterator[_T] = merge(*runs, key=key)  # type: ignore[arg-type]
    ordered: list[_T] = []
    while step := list(islice(merged, size)):
        ordered.extend(step)
        yield
    return ordered


class CooperativeRunner:
    """Runs work immediately if it fits into a slice, and otherwise in slices that alternate with other work.

    Waiting work takes turns, step by step. Work of at most SHORT_STEPS steps has slices of its own, so that it does
    not wait for work that is longer. cooperator: for iterators that run in the slices of long work. first: the runner
    whose short work slows the long work of this one; by default this one.
    """

    def __init__(self, clock: IReactorTime, first: "CooperativeRunner | None" = None) -> None:
        self._clock = clock
        self._first = first or self
        self._short = Cooperator(lambda: _begin_slice(clock), lambda call: clock.callLater(0, call))
        self.cooperator = Cooperator(
            lambda: _begin_slice(clock),
            lambda call: clock.callLater(BUSY_PAUSE if self._first._waiting else 0, call),
        )
        self._waiting = 0
        """Short work that waits for its slices."""
        self._is_over: Callable[[], bool] | None = None
        """Returns whether work that is done at once has used its time; None without any."""
        self._immediate_seconds = IMMEDIATE_SECONDS
        """The time that is left for it in this turn."""
        self._credit = SLICE_SECONDS
        self._credited_at = clock.seconds()
        self._shared: dict[Hashable, _SharedWork] = {}

    async def run(self, steps: Generator[None, None, _T]) -> _T:
        """Run work; return its result."""
        if self._is_over is not None:
            return run_now(steps, self._is_over)
        results: list[_T] = []
        remaining = named(_collected(steps, results), current_work.get())
        try:
            if self._waiting or not self._has_credit() or not self._fits(remaining):
                if not is_background.get():
                    self._waiting += 1
                    try:
                        await self._short.coiterate(islice(remaining, SHORT_STEPS))
                    finally:
                        self._waiting -= 1
                if not results:
                    await self.cooperator.coiterate(remaining)
        finally:
            remaining.close()  # when the caller is cancelled
        return results[0]

    def result_now(self, coroutine: Coroutine[Any, Any, _T]) -> _T | None:
        """Run a coroutine whose work is little, all of it at once; return its result.

        Return None, and close it, if it would have to wait, or if the work that is done so in one turn of the reactor
        would take more than IMMEDIATE_SECONDS.
        """
        began = self._clock.seconds()
        try:
            if self._immediate_seconds > 0:
                self._is_over = _begin_slice(self._clock, self._immediate_seconds)
                coroutine.send(None)
        except StopIteration as end:
            result: _T = end.value
            return result
        except MustWait:
            pass
        finally:
            self._is_over = None
            coroutine.close()
            self._use_turn(self._clock.seconds() - began)
        return None

    def _use_turn(self, seconds: float) -> None:
        """Subtract the time of work that was done at once from what is left in this turn."""
        if seconds > 0:
            if self._immediate_seconds == IMMEDIATE_SECONDS:
                self._clock.callLater(0, self._begin_turn)
            self._immediate_seconds -= seconds

    def _begin_turn(self) -> None:
        self._immediate_seconds = IMMEDIATE_SECONDS

    async def run_shared(self, key: Hashable, make_steps: Callable[[], Generator[None, None, _T]]) -> _T:
        """Run work once for all callers with the same key at the same time; return its result.

        The work is cancelled when all callers are. Within result_now(), it raises MustWait instead of waiting.
        """
        shared = self._shared.get(key)
        if shared is not None and self._is_over is not None:
            raise MustWait
        if shared is None:
            work: Deferred[Any] = Deferred.fromCoroutine(self.run(make_steps()))
            if not work.called:
                shared = self._shared[key] = _SharedWork(work)
                work.addBoth(self._end_shared, key, shared)
            else:
                return await work  # type: ignore[no-any-return]
        return await shared.wait()  # type: ignore[no-any-return]

    def _end_shared(self, result: object, key: Hashable, shared: "_SharedWork") -> None:
        del self._shared[key]
        self.resume(shared.waiters, result)

    def resume(self, waiters: dict[Deferred[Any], None], result: object) -> None:
        """Fire Deferreds with a result or a Failure, in slices, except those that are cancelled meanwhile."""
        waiting = list(waiters)
        waiters.clear()

        def steps() -> Generator[None, None, None]:
            for waiter in waiting:
                if waiter.called:
                    continue  # cancelled
                if isinstance(result, Failure):
                    waiter.errback(result)
                else:
                    waiter.callback(result)
                yield

        if len(waiting) == 1:  # most often
            run_now(steps())
            return
        Deferred.fromCoroutine(self.run(steps()))

    def _has_credit(self) -> bool:
        """Return whether immediate work may use more time: several requests may arrive in one turn.

        It may use a slice at once, and half of the time in the long run.
        """
        now = self._clock.seconds()
        idle, self._credited_at = now - self._credited_at, now
        self._credit = min(self._credit + max(idle, 0.0), SLICE_SECONDS)
        return self._credit > 0

    def _fits(self, work: Iterator[None]) -> bool:
        """Run work for the rest of a slice; return whether it is finished."""
        began = self._clock.seconds()
        is_over = _begin_slice(self._clock, self._credit)
        is_finished = all(not is_over() for _ in work)
        self._credited_at = self._clock.seconds()
        self._credit -= min(max(self._credited_at - began, 0.0), SLICE_SECONDS)  # the clock may be set
        return is_finished


class _SharedWork:
    """Work in progress, and the callers that wait for it."""

    def __init__(self, work: Deferred[Any]) -> None:
        self._work = work
        self.waiters: dict[Deferred[Any], None] = {}

    def wait(self) -> Deferred[Any]:
        """Return a Deferred of the result; when all of them are cancelled, so is the work."""
        waiter: Deferred[Any] = Deferred(self._cancel)
        self.waiters[waiter] = None
        return waiter

    def _cancel(self, waiter: Deferred[Any]) -> None:
        if waiter in self.waiters:
            del self.waiters[waiter]
            if not self.waiters:
                self._work.cancel()


def _collected(steps: Generator[None, None, _T], results: list[_T]) -> Generator[None, None, None]:
    """Run steps, and append their result."""
    results.append((yield from steps))


def _begin_slice(clock: IReactorTime, seconds: float = SLICE_SECONDS) -> Callable[[], bool]:
    """Begin a slice; return a function that returns whether it is over."""
    began = clock.seconds()
    return lambda: not 0 <= clock.seconds() - began < seconds
