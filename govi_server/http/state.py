"""The states of a connection: one table of transitions, deadlines and what becomes of the bytes that arrive.

A connection is in one state at a time. Entering a state is the only way to set a deadline.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

from govi_server.http.timeouts import TimeoutHandler


class State(Enum):
    """What a connection does now."""

    rule: "Rule"
    """Its row of the table."""

    NEW = auto()
    """It was accepted; nothing of the first request has been received."""
    IDLE = auto()
    """It has had a response; nothing of the next request has been received, except empty lines."""
    RECEIVING = auto()
    """A part of a request has been received."""
    PROCESSING = auto()
    """A whole request has been received; a module prepares its response."""
    SENDING = auto()
    """A response was written; the module has not finished, or the request is about to end."""
    WRITE_PAUSED = auto()
    """A response was written, more of it than the client has read; the transport has paused its producer."""
    STREAMING = auto()
    """The head of a response without an end was written; the module writes its body as events occur."""
    YIELDING = auto()
    """Pipelined requests wait until other connections have been served."""
    LINGERING = auto()
    """The last response was written and the sending side closed; the client may read it (RFC 9112 section 9.6)."""
    CLOSING = auto()
    """Both sides are being closed, to make room for another connection."""
    CLOSED = auto()
    """The connection was lost or aborted."""

    # A transition looks up the table, and Enum's own hash is a function in Python.
    __hash__ = object.__hash__


class Deadline(Enum):
    """The limits of time; server.Server has a TimeoutHandler for each."""

    CONNECTION = auto()
    """A request's, from its first byte (the first request's: from accept) until its response was sent: 406, or abort.

    It runs through all consecutive states that have it: slow senders and readers do not renew it.
    """
    KEEP_ALIVE = auto()
    """Between a response and the next request: the connection is closed."""
    LINGER = auto()
    """For reading the last response: the connection is aborted."""
    CLOSE = auto()
    """For closing a dropped connection: it is aborted."""

    __hash__ = object.__hash__


class Input(Enum):
    """What becomes of the bytes that arrive."""

    PARSED = auto()
    BUFFERED = auto()
    DISCARDED = auto()


class Rule(NamedTuple):
    """One row of the table."""

    deadline: Deadline | None
    input: Input
    transitions: frozenset[State]
    """The states that may follow."""


def _rule(deadline: Deadline | None, input: Input, *transitions: State) -> Rule:
    return Rule(deadline, input, frozenset(transitions))


_S, _D, _I = State, Deadline, Input

TABLE: Mapping[State, Rule] = {
    # IDLE follows when the response was cached: such a request is received, processed and sent in one step.
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
"""The states, in the order of a connection's life."""

for _state, _row in TABLE.items():
    _state.rule = _row

IN_REQUEST = frozenset((_S.RECEIVING, _S.PROCESSING, _S.SENDING, _S.WRITE_PAUSED, _S.STREAMING))
"""The states in which a request has begun and not ended."""


class InvalidTransition(RuntimeError):
    """A state was entered that does not follow the current one: a programming error."""


class Lifecycle:
    """The state of one connection, and its deadline.

    timeouts: the deadline of each state.
    """

    __slots__ = ("_timeout", "_timeouts", "state")

    def __init__(self, timeouts: Mapping[State, TimeoutHandler[Any] | None]) -> None:
        self.state = State.NEW
        self._timeouts = timeouts
        self._timeout = timeouts[State.NEW]
        if self._timeout is not None:
            self._timeout.start(self)

    @property
    def is_ending(self) -> bool:
        """Whether no request of it is served any more."""
        return self.state.rule.input is Input.DISCARDED

    def enter(self, state: State) -> None:
        """Enter a state and set its deadline, counted from now; one that both states share runs on.

        Entering the current state again restarts its deadline. Raises InvalidTransition.
        """
        previous = self.state
        if state not in previous.rule.transitions:
            raise InvalidTransition(f"{previous.name} is not followed by {state.name}")
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
