"""The states of a connection, in one table of transitions, deadlines and the handling of received bytes.

Entering a state is the only way to set a deadline.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto
from typing import Any, Generic, NamedTuple, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_Connection = TypeVar("_Connection")

MAX_EXPIRED_IN_TURN = 20
"""Connections whose deadline is handled in one turn of the reactor: a response and the end of each, a tenth of a
millisecond or more."""

MAX_EXPIRY_SECONDS = 0.002
"""Time after which the others are handled in the next turn: the end of one frees what its request has made so far,
such as a thousand boards."""


class TimeoutHandler(Generic[_Connection]):
    """Deadlines of one length for many connections: calls expire(connection) at each deadline.

    As all deadlines are equally long, they expire in the order in which they were set. So one dictionary and one
    callLater serve them all, and setting a deadline is O(1). (The dictionary is an OrderedDict, since repeatedly
    removing the first key of a plain dict needs quadratic time.) If the clock is set back, runtime.clock.ClockWatch
    moves the call.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, limit: float, expire: Callable[[_Connection], None]) -> None:
        self._clock = clock
        self._limit = limit
        self._expire = expire
        self._started_at: OrderedDict[_Connection, float] = OrderedDict()
        self._call: IDelayedCall | None = None

    def start(self, connection: _Connection) -> None:
        """Set a connection's deadline, counted from now."""
        started_at, now = self._started_at, self._clock.seconds()
        started_at[connection] = now
        started_at.move_to_end(connection)
        if self._call is None:
            self._call = self._clock.callLater(self._limit, self._check)

    def stop(self, connection: _Connection) -> None:
        """Remove a connection's deadline, if it is set."""
        self._started_at.pop(connection, None)

    def __iter__(self) -> Iterator[_Connection]:
        """Iterate over the connections that have a deadline, the earliest first."""
        return iter(self._started_at)

    def cancel(self) -> None:
        """Remove all deadlines."""
        self._started_at.clear()
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _check(self) -> None:
        """Expire connections past their deadline, at most some in a turn, and schedule the next check."""
        now = self._clock.seconds()
        for _ in range(MAX_EXPIRED_IN_TURN):
            if not self._started_at:
                self._call = None
                return
            connection, started_at = next(iter(self._started_at.items()))
            remaining = started_at + self._limit - now
            # More than the limit (plus a second for rounding) means that the clock was set back: expire it as well.
            if 0 < remaining < self._limit + 1:
                self._call = self._clock.callLater(remaining, self._check)
                return
            del self._started_at[connection]
            try:
                self._expire(connection)
            except Exception:
                self.log.failure("Handling a deadline failed")  # the other deadlines are still checked
            if not 0 <= self._clock.seconds() - now < MAX_EXPIRY_SECONDS:
                break
        self._call = self._clock.callLater(0, self._check)


class State(Enum):
    """The state of a connection."""

    rule: "Rule"
    """The state's row of the table."""

    NEW = auto()
    """The connection was accepted; nothing of the first request has arrived."""
    IDLE = auto()
    """The last request is finished; nothing of the next one has arrived, except empty lines."""
    RECEIVING = auto()
    """Part of a request has arrived."""
    PROCESSING = auto()
    """A complete request has arrived; a module prepares the response."""
    SENDING = auto()
    """A response was written; the module is still running, or the request is about to end."""
    WRITE_PAUSED = auto()
    """A response was written faster than the client reads; the transport has paused its producer."""
    STREAMING = auto()
    """The head of an endless response was written; the module writes the body as events occur."""
    DISCARDING = auto()
    """The response was sent; the rest of the request's body, which no module reads, is received and discarded."""
    YIELDING = auto()
    """Pipelined requests wait while other connections are served."""
    LINGERING = auto()
    """The last response was written and the sending side closed; the client may still read (RFC 9112 section 9.6)."""
    CLOSING = auto()
    """The connection is being closed to make room for another one."""
    CLOSED = auto()
    """The connection was lost or aborted."""

    # For fast look-ups in the table: Enum's own hash is a Python function.
    __hash__ = object.__hash__


class Deadline(Enum):
    """The kinds of deadlines; server.Server has a TimeoutHandler for each."""

    REQUEST = auto()
    """From the first byte of a request (for the first request: from accept) until its response was sent.

    Then the client gets a 406, or the connection is aborted. The deadline runs on through all consecutive states that
    share it, so slow senders and readers do not renew it.
    """
    KEEP_ALIVE = auto()
    """Between a response and the next request; then the connection is closed."""
    LINGER = auto()
    """For reading the last response; then the connection is aborted."""
    CLOSE = auto()
    """For closing a dropped connection; then it is aborted."""

    __hash__ = object.__hash__


class Input(Enum):
    """How received bytes are handled."""

    PARSED = auto()
    BUFFERED = auto()
    DISCARDED = auto()


class Rule(NamedTuple):
    """One row of the table."""

    deadline: Deadline | None
    input: Input
    transitions: frozenset[State]
    """The possible next states."""


def _rule(deadline: Deadline | None, input: Input, *transitions: State) -> Rule:
    return Rule(deadline, input, frozenset(transitions))


_S, _D, _I = State, Deadline, Input


TABLE: Mapping[State, Rule] = {
    # NEW and IDLE go to IDLE when the response was cached: such a request is served in a single step.
    _S.NEW: _rule(_D.REQUEST, _I.PARSED, _S.IDLE, _S.RECEIVING, _S.SENDING, _S.LINGERING, _S.CLOSING, _S.CLOSED),
    _S.IDLE: _rule(_D.KEEP_ALIVE, _I.PARSED, _S.IDLE, _S.RECEIVING, _S.SENDING, _S.LINGERING, _S.CLOSING, _S.CLOSED),
    _S.RECEIVING: _rule(_D.REQUEST, _I.PARSED, _S.PROCESSING, _S.SENDING, _S.LINGERING, _S.CLOSING, _S.CLOSED),
    # PROCESSING goes back to RECEIVING when the module reads the body.
    _S.PROCESSING: _rule(_D.REQUEST, _I.BUFFERED, _S.RECEIVING, _S.SENDING, _S.STREAMING, _S.CLOSED),
    _S.SENDING: _rule(
        _D.REQUEST, _I.BUFFERED, _S.WRITE_PAUSED, _S.IDLE, _S.DISCARDING, _S.YIELDING, _S.LINGERING, _S.CLOSED
    ),
    _S.WRITE_PAUSED: _rule(_D.REQUEST, _I.BUFFERED, _S.SENDING, _S.STREAMING, _S.LINGERING, _S.CLOSED),
    _S.STREAMING: _rule(None, _I.BUFFERED, _S.WRITE_PAUSED, _S.LINGERING, _S.CLOSED),
    _S.DISCARDING: _rule(_D.REQUEST, _I.PARSED, _S.IDLE, _S.YIELDING, _S.LINGERING, _S.CLOSING, _S.CLOSED),
    _S.YIELDING: _rule(_D.KEEP_ALIVE, _I.BUFFERED, _S.IDLE, _S.SENDING, _S.LINGERING, _S.CLOSING, _S.CLOSED),
    _S.LINGERING: _rule(_D.LINGER, _I.DISCARDED, _S.CLOSED),
    _S.CLOSING: _rule(_D.CLOSE, _I.DISCARDED, _S.CLOSED),
    _S.CLOSED: _rule(None, _I.DISCARDED),
}
"""The row of each state, in the order of a connection's life."""


for _state, _row in TABLE.items():
    _state.rule = _row


IN_REQUEST = frozenset((_S.RECEIVING, _S.PROCESSING, _S.SENDING, _S.WRITE_PAUSED, _S.STREAMING))
"""The states with an unfinished request."""


class InvalidTransition(RuntimeError):
    """A state was entered that the table does not allow next: a programming error."""


class Lifecycle:
    """The state and the deadline of one connection. timeouts: the deadline of each state."""

    __slots__ = ("_timeout", "_timeouts", "state")

    def __init__(self, timeouts: Mapping[State, TimeoutHandler[Any] | None]) -> None:
        self.state = State.NEW
        self._timeouts = timeouts
        self._timeout = timeouts[State.NEW]
        if self._timeout is not None:
            self._timeout.start(self)

    @property
    def is_ending(self) -> bool:
        """Whether the connection serves no more requests."""
        return self.state.rule.input is Input.DISCARDED

    @property
    def is_idle(self) -> bool:
        """Whether no part of a request was received, or none since the last response."""
        return self.state in (State.NEW, State.IDLE)

    def enter(self, state: State) -> None:
        """Enter a state and set its deadline, counted from now; a deadline that both states share runs on.

        Entering the current state again restarts its deadline. Raises InvalidTransition.
        """
        previous = self.state
        if state not in previous.rule.transitions:
            raise InvalidTransition(f"invalid transition from {previous.name} to {state.name}")
        self.state = state
        timeout = self._timeouts[state]
        if timeout is not self._timeout:
            if self._timeout is not None:
                self._timeout.stop(self)
            self._timeout = timeout
        elif state is not previous:
            return
        if timeout is not None:
            timeout.start(self)
