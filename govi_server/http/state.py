"""The states of a connection, in one table of transitions, deadlines and the handling of received bytes.

Entering a state is the only way to set a deadline.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

from govi_server.http.timeouts import TimeoutHandler


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

    CONNECTION = auto()
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
    _S.NEW: _rule(_D.CONNECTION, _I.PARSED, _S.IDLE, _S.RECEIVING, _S.SENDING, _S.LINGERING, _S.CLOSING, _S.CLOSED),
    _S.IDLE: _rule(_D.KEEP_ALIVE, _I.PARSED, _S.IDLE, _S.RECEIVING, _S.SENDING, _S.LINGERING, _S.CLOSING, _S.CLOSED),
    _S.RECEIVING: _rule(_D.CONNECTION, _I.PARSED, _S.PROCESSING, _S.SENDING, _S.LINGERING, _S.CLOSING, _S.CLOSED),
    _S.PROCESSING: _rule(_D.CONNECTION, _I.BUFFERED, _S.SENDING, _S.STREAMING, _S.CLOSED),
    _S.SENDING: _rule(_D.CONNECTION, _I.BUFFERED, _S.WRITE_PAUSED, _S.IDLE, _S.YIELDING, _S.LINGERING, _S.CLOSED),
    _S.WRITE_PAUSED: _rule(_D.CONNECTION, _I.BUFFERED, _S.SENDING, _S.STREAMING, _S.LINGERING, _S.CLOSED),
    _S.STREAMING: _rule(None, _I.BUFFERED, _S.WRITE_PAUSED, _S.LINGERING, _S.CLOSED),
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
