"""The connection to the KV78turbo feed (docs/protocols.md, section 2.2).

Longer than other modules: whether to reconnect depends on all that it notes of messages, the socket and the clock.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import zmq
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from govi_server.errors import StartupError
from govi_server.kv78turbo.zmq_sockets import (
    FIRST_BACK_OFF,
    Socket,
    SocketDescriptor,
    SubscriberSockets,
    can_resolve,
    check_address,
    has_message,
    host_of,
)
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import SubscriberSettings

PLANNING_PREFIX = "/GOVI/KV7"
PREFIXES = ("/GOVI/KV8", PLANNING_PREFIX)
"""Envelope prefixes of the feed, which match old and new names (docs/protocols.md, section 2.2)."""

State = Literal["UNKNOWN", "RECOVERING", "UP", "DOWN"]
"""UP: complete; RECOVERING: receiving data, but not complete yet."""

MAX_TURN_SECONDS = 0.005
"""How long one turn of the reactor reads, which may delay responses by about as much."""

MAX_TURN_MESSAGES = 200
"""Messages that one turn of the reactor reads."""

MAX_SECONDS_WITHOUT_DATA = 300.0
"""How long the feed may send only heartbeats: at night it sends little data."""

FIRST_FRAME_SECONDS = 10.0
"""Time for the first frame after the start, before a line of the log names the probable cause."""

LATE_CALL_SECONDS = 1.0
"""A call this late means that the clock was set, or that the process was suspended."""


_ENVELOPE = re.compile(rb"[ -~]{0,200}")
"""Printable ASCII: envelopes are logged with rejected records. Known ones have up to 50 characters."""


class Subscriber(Service):
    """Maintains one connection to the feed, and passes on its messages in order.

    reactor: an IReactorTime, IReactorFDSet and IReactorThreads. addresses: used in turn, one at a time. prefixes:
    envelope prefixes to subscribe to; "" for all. received: called with a message's envelope and its data, one gzip
    file; if it returns a Deferred, reading pauses until that fires. setting: names the addresses in errors. Raises
    StartupError for an invalid address. recovered: called when data arrives after the feed was DOWN, with the time of
    the data before (epoch seconds). relay: called with the frames of every message as received, heartbeats included.

    When the system clock is set back, silence is measured from that moment.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        addresses: Sequence[str],
        prefixes: Sequence[str],
        received: Callable[[str, bytes], Deferred[None] | None],
        limits: SubscriberSettings = SubscriberSettings(),
        *,
        setting: str = "--feed",
        recovered: Callable[[float], object] = lambda since: None,
        relay: Callable[[list[bytes]], object] | None = None,
        _sockets: SubscriberSockets | None = None,
    ) -> None:
        if not addresses or not prefixes:
            raise StartupError(f"{setting}: requires at least one address and one envelope prefix")
        for address in addresses:
            check_address(setting, address)
        self._reactor = reactor
        self._addresses = addresses
        self._setting = setting
        self._received = received
        self._recovered = recovered
        self._relay = relay
        self._limits = limits
        self._sockets = _sockets or SubscriberSockets(reactor, prefixes, limits)
        self.attempts = 0
        """Number of connections started."""
        self._back_off = min(FIRST_BACK_OFF, limits.back_off)
        self._state: State = "UNKNOWN"
        self._recovering_since = 0.0
        self._last_frame = 0.0  # or the start of the connection
        self._socket: Socket | None = None
        self._descriptor: SocketDescriptor | None = None
        self._consuming: Deferred[None] | None = None
        self._read_call: IDelayedCall | None = None
        """The next turn of reading."""
        self._timer: IDelayedCall | None = None
        """The next check for silence, or the end of the back-off."""
        self._first_frame_call: IDelayedCall | None = None
        self.incidents = ThrottledWarnings(self.log, reactor)
        self.address: str | None = None
        """The current address; None between attempts."""
        self.last: float | None = None
        """Epoch seconds of the last message with data."""
        self.alive: float | None = None
        """Epoch seconds of the last frame of any kind."""

    @property
    def state(self) -> State:
        """The state of the feed."""
        return self._state

    def startService(self) -> None:
        """Connect. Raises StartupError if libzmq rejects the address."""
        try:
            self._connect()
        except zmq.ZMQError as error:
            self._sockets.close()
            raise StartupError(
                f"{self._setting}: cannot connect to {self._addresses[0]!r}: {error.strerror}"
            ) from None
        super().startService()
        self._first_frame_call = self._reactor.callLater(FIRST_FRAME_SECONDS, self._check_first_frame)

    def stopService(self) -> Deferred[None]:
        """Close the connection; fires when libzmq's threads have ended."""
        super().stopService()
        if self._first_frame_call is not None and self._first_frame_call.active():
            self._first_frame_call.cancel()
        self._close()
        return self._sockets.close()

    def subscribe(self, prefix: bytes) -> bool:
        """Subscribe to another prefix; return whether it was not subscribed to before."""
        return self._sockets.subscribe(prefix)

    def unsubscribe(self, prefix: bytes) -> None:
        """End a subscription to a prefix."""
        self._sockets.unsubscribe(prefix)

    def _connect(self) -> None:
        rounds, index = divmod(self.attempts, len(self._addresses))
        self.attempts += 1
        address = self._addresses[index]
        # With IPv6 on, libzmq tries only the IPv6 address of a name that has both. Every other round is without, for
        # hosts without an IPv6 route.
        self._socket = self._sockets.connect(address, ipv6=rounds % 2 == 0)
        self.address = address
        self._last_frame = self._reactor.seconds()
        self._timer = self._reactor.callLater(self._limits.silence, self._check_silence)
        self._descriptor = SocketDescriptor(self._socket, self._ready)
        self._reactor.addReader(self._descriptor)
        self._read_later()  # earlier events may not make the descriptor readable

    def _close(self) -> None:
        for call in (self._read_call, self._timer):
            if call is not None and call.active():
                call.cancel()
        self._read_call = self._timer = None
        if self._descriptor is not None:
            self._reactor.removeReader(self._descriptor)
            self._descriptor = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.address = None

    def _reconnect(self, address: str | None, reason: str) -> None:
        """Close the connection, and connect to the next address after the back-off."""
        self._close()
        level = LogLevel.info if self._state == "DOWN" else LogLevel.warn  # still DOWN needs no attention
        self._state = "DOWN"
        self.log.emit(
            level,
            "Feed {address}: {reason} (DOWN); reconnecting to {next} in {seconds:g} s",
            address=address,
            reason=reason,
            next=self._next_address,
            seconds=self._back_off,
        )
        self._timer = self._reactor.callLater(self._back_off, self._try)
        self._back_off = min(2 * self._back_off, self._limits.back_off)

    @property
    def _next_address(self) -> str:
        return self._addresses[self.attempts % len(self._addresses)]

    def _try(self) -> None:
        address = self._next_address
        try:
            self._connect()
        except zmq.ZMQError as error:  # libzmq rejects a further address, or there are too many open files
            self._reconnect(address, f"cannot connect: {error.strerror}")

    def _check_first_frame(self) -> None:
        """Log that nothing was received: libzmq retries names and refused connections without reporting them."""
        if self.alive is not None or self._state != "UNKNOWN":
            return
        resolved = can_resolve(self._reactor, "" if self.address is None else host_of(self.address))
        resolved.addCallback(self._report_nothing)

    def _report_nothing(self, is_resolved: bool) -> None:
        """Log that nothing was received, unless it was meanwhile. is_resolved: whether the host's name was."""
        if not self.running or self.alive is not None:
            return
        cause = "check the address, and that outgoing connections to its port are allowed"
        if not is_resolved:
            cause = "its host name cannot be resolved; check the address, and the network and DNS of this machine"
        self.log.warn(
            "Feed {address}: nothing received for {seconds:g} s; {cause}",
            address=self.address,
            seconds=FIRST_FRAME_SECONDS,
            cause=cause,
        )

    def _check_silence(self) -> None:
        """Reconnect after the maximum silence; otherwise schedule the next check."""
        now, silence = self._reactor.seconds(), self._limits.silence
        self._last_frame = min(self._last_frame, now)  # both are in the future after the clock was set back
        self.last = None if self.last is None else min(self.last, now)
        try:
            is_silent = self._is_silent(now)
        except zmq.ZMQError as error:
            self._reconnect(self.address, f"cannot read: {error.strerror}")
            return
        if not is_silent:
            self._last_frame = now
        elif now - self._last_frame >= silence:
            self._reconnect(self.address, f"no data for {silence:g} s")
            return
        elif self._state == "UNKNOWN":
            self._set_state("DOWN", f"only heartbeats for {silence:g} s")
        elif self._state != "DOWN" and self.last is not None and now - self.last >= MAX_SECONDS_WITHOUT_DATA:
            self._set_state("DOWN", f"only heartbeats for {now - self.last:.0f} s")
        self._timer = self._reactor.callLater(self._last_frame + silence - now, self._check_silence)

    def _is_silent(self, now: float) -> bool:
        """Return whether no frames were read because none arrived."""
        assert self._socket is not None
        assert self._timer is not None
        if self._consuming is not None:
            self.incidents.add(
                "slow",
                "Feed {address}: messages are queueing behind one that is still being processed",
                address=self.address,
            )
            return False
        if has_message(self._socket):
            self._read_later()
            return False
        return bool(now - self._timer.getTime() < LATE_CALL_SECONDS)

    def _ready(self) -> None:
        """Schedule a read: an error in this call would make the reactor drop the descriptor."""
        if self._socket is not None:
            has_message(self._socket)  # makes the descriptor unreadable, or the reactor would spin
            self._read_later()

    def _read_later(self) -> None:
        if self._read_call is None and self._consuming is None:
            self._read_call = self._reactor.callLater(0, self._read)

    def _read(self) -> None:
        """Read for one turn.

        libzmq makes the descriptor readable once for all waiting messages, so they are read until none is left.
        """
        self._read_call = None
        socket, started = self._socket, self._reactor.seconds()
        assert socket is not None
        assert self._timer is not None
        if self._timer.getTime() - started > self._limits.silence:  # the clock was set back
            self._timer.reset(self._limits.silence)
        try:
            for _ in range(MAX_TURN_MESSAGES):
                if not has_message(socket):
                    return
                self._ingest(socket.recv_multipart(zmq.NOBLOCK))
                if self._socket is not socket or self._consuming is not None:
                    return
                if not 0 <= self._reactor.seconds() - started < MAX_TURN_SECONDS:
                    break
        except zmq.ZMQError as error:
            self._reconnect(self.address, f"cannot read: {error.strerror}")
        else:
            self._read_later()

    def _ingest(self, frames: list[bytes]) -> None:
        """Pass on a message: an envelope, and data in any number of frames. An envelope alone is a heartbeat."""
        self.alive = self._last_frame = now = self._reactor.seconds()
        size = sum(map(len, frames))
        if size > self._limits.message:  # libzmq's limit is for each frame
            self._drop("too large", "{size} bytes", size=size)
            return
        if self._relay is not None:
            self._relay(frames)
        if len(frames) == 1:
            return
        if not _ENVELOPE.fullmatch(frames[0]):
            self._drop("envelope", "invalid envelope {envelope}", envelope=frames[0][:100])
            return
        envelope = frames[0].decode()
        data = b"".join(frames[1:])
        if not data:
            self._drop("empty", "no data in {envelope}", envelope=envelope)
            return
        previous, self.last = self.last, now
        self._back_off = min(FIRST_BACK_OFF, self._limits.back_off)
        try:
            self._data_received(previous, now)
            consuming = self._received(envelope, data)
        except Exception:
            self._not_consumed(Failure(), envelope)
            return
        if consuming is not None:
            self._consuming = consuming
            consuming.addErrback(self._not_consumed, envelope)
            consuming.addCallback(self._consumed)

    def _drop(self, kind: str, reason: str, **fields: object) -> bool:
        """Count a message that is dropped; return whether it was logged."""
        return self.incidents.add(kind, "Feed {address}: message dropped, " + reason, address=self.address, **fields)

    def _data_received(self, previous: float | None, now: float) -> None:
        if self._state in ("UNKNOWN", "DOWN"):
            self._recovering_since = now
            self._set_state("RECOVERING", "receiving data")
            if previous is not None:
                self._recovered(previous)
        elif self._state == "RECOVERING":
            if now < self._recovering_since:  # the clock was set back
                self._recovering_since = now
            if now - self._recovering_since >= self._limits.recovery:
                self._set_state("UP", f"complete after {self._limits.recovery:g} s of data")

    def _set_state(self, state: State, event: str) -> None:
        self._state = state
        level = LogLevel.warn if state == "DOWN" else LogLevel.info
        self.log.emit(level, "Feed {address}: {event} ({state})", address=self.address, event=event, state=state)

    def _not_consumed(self, failure: Failure, envelope: str) -> None:
        """Drop a message that met a fault of the program, whose traceback is logged once a minute."""
        error = repr(failure.value)
        if self._drop("not consumed", "{envelope} cannot be ingested: {error}", envelope=envelope, error=error):
            self.log.failure("Feed {address}: ingesting failed", failure, address=self.address)

    def _consumed(self, _: None) -> None:
        self._consuming = None
        if self._socket is not None:
            self._read_later()
