"""The connection to the KV78turbo feed: ZeroMQ messages, read in the reactor (docs/protocols.md 2.2)."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import zmq
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.errors import StartupError
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import SubscriberSettings

State = Literal["UNKNOWN", "RECOVERING", "UP", "DOWN"]

FIRST_BACK_OFF = 1.0
"""Seconds between the first two attempts; twice as many before each further one."""

TURN = 0.005
"""Seconds that one turn of the reactor reads: about what it may add to the time of an answer."""

TURN_MESSAGES = 200
"""Messages that one turn of the reactor reads, whatever the clock says."""

QUIET = 300.0
"""Seconds with heartbeats and without data after which the feed tells nothing any more: at night it tells little."""

LATE = 1.0
"""Seconds by which a call is late when something is wrong with the clock, or the process stood still."""

# What connect() of libzmq asks of the shape; but it takes any number for a port.
_TCP = re.compile(r"[A-Za-z0-9\[:][A-Za-z0-9.:%_\[\]-]*:(\d{1,5})", re.ASCII)


class _Sockets:
    """Makes SUB sockets in a context of its own. reactor: an IReactorThreads."""

    def __init__(self, reactor: Any, prefixes: Sequence[str], limits: SubscriberSettings) -> None:
        self._reactor = reactor
        self._prefixes = prefixes
        self._limits = limits
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None

    def connect(self, address: str, ipv6: bool) -> "zmq.Socket[bytes]":
        """Begin to connect to an address. Raises ZMQError for what is none to libzmq."""
        if self._context is None:  # not sooner: its threads would not survive twistd's fork
            self._context = zmq.Context()
        socket = self._context.socket(zmq.SUB)
        try:
            socket.linger = 0
            socket.rcvhwm = self._limits.queue
            socket.maxmsgsize = self._limits.message
            socket.ipv6 = ipv6
            socket.tcp_keepalive = 1
            socket.tcp_keepalive_idle = 60  # seconds; the system's default is two hours
            # ZMTP's own heartbeats stay off: they are younger than ZMTP 3.0, which old publishers speak, and would
            # tell nothing that silence does not.
            socket.reconnect_ivl = round(1000 * min(FIRST_BACK_OFF, self._limits.back_off))
            socket.reconnect_ivl_max = round(1000 * self._limits.back_off)
            for prefix in self._prefixes:
                socket.subscribe(prefix)
            socket.connect(address)
        except zmq.ZMQError:
            socket.close()
            raise
        return socket

    def close(self) -> Deferred[None]:
        """End the context, whose sockets are closed; fires when its threads have ended.

        In the reactor's thread pool: libzmq looks names up in its I/O thread, and while a name server does not
        answer, term() waits for that.
        """
        context, self._context = self._context, None
        if context is None:
            return succeed(None)
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), context.term)


@implementer(IReadDescriptor)
class _Descriptor:
    """The file descriptor that a socket makes readable when something may have happened to it."""

    def __init__(self, socket: "zmq.Socket[bytes]", ready: Callable[[], None]) -> None:
        self._number = socket.FD
        self._ready = ready

    def fileno(self) -> int:
        """Give its number, which libzmq keeps until the socket is closed."""
        return self._number

    def doRead(self) -> None:
        """See what has happened."""
        self._ready()

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the reactor is about to end, and stopService() closes the socket."""

    def logPrefix(self) -> str:
        """Say what reads, in Twisted's own log lines."""
        return "kv78turbo"


class Subscriber(Service):
    """Keeps one connection to the feed, and hands over its messages in their order.

    reactor: an IReactorTime, IReactorFDSet and IReactorThreads. addresses: taken in turn, one at a time. prefixes: of
    the envelopes that are wanted; "" for all. received: called with a message's envelope and its data, one gzip file;
    when it returns a Deferred, nothing more is read until that fires. Raises CannotStart for what is no address.

    A silence in which the clock of the system is set back counts from there.
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
        _sockets: _Sockets | None = None,
    ) -> None:
        if not addresses or not prefixes:
            raise StartupError("KV78turbo needs an address and the prefix of an envelope at least")
        for address in addresses:
            _check(address)
        self._reactor = reactor
        self._addresses = addresses
        self._received = received
        self._limits = limits
        self._sockets = _sockets or _Sockets(reactor, prefixes, limits)
        self.attempts = 0
        """Connections that were begun."""
        self._back_off = min(FIRST_BACK_OFF, limits.back_off)
        self._state: State = "UNKNOWN"
        self._recovering = 0.0  # since when
        self._heard = 0.0  # when the last frame came, or the connection was begun
        self._socket: zmq.Socket[bytes] | None = None
        self._descriptor: _Descriptor | None = None
        self._consuming: Deferred[None] | None = None
        self._more: IDelayedCall | None = None
        """The next turn, when this one has left something to read."""
        self._watch: IDelayedCall | None = None
        """The end of the silence, or of the back-off."""
        self.incidents = ThrottledWarnings(self.log, reactor)
        self.address: str | None = None
        """The one in use; None between two attempts."""
        self.last: float | None = None
        """Epoch seconds of the last message that had data."""
        self.alive: float | None = None
        """Epoch seconds of the last frame of any kind."""

    @property
    def state(self) -> State:
        """Tell what the feed's messages amount to: everything when it is UP."""
        return self._state

    def startService(self) -> None:
        """Connect. Raises CannotStart for what libzmq does not take for an address."""
        try:
            self._connect()
        except zmq.ZMQError as error:
            self._sockets.close()
            raise StartupError(f"cannot connect to {self._addresses[0]!r} for KV78turbo: {error.strerror}") from None
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Close the connection; fires when libzmq's threads have ended."""
        super().stopService()
        self._close()
        return self._sockets.close()

    def _connect(self) -> None:
        rounds, which = divmod(self.attempts, len(self._addresses))
        self.attempts += 1
        address = self._addresses[which]
        # With IPv6 on, libzmq tries only the IPv6 address of a name that has both, and never its IPv4 one. So every
        # other round does without, for those who have no route to it.
        self._socket = self._sockets.connect(address, ipv6=rounds % 2 == 0)
        self.address = address
        self._heard = self._reactor.seconds()
        self._watch = self._reactor.callLater(self._limits.silence, self._look)
        self._descriptor = _Descriptor(self._socket, self._ready)
        self._reactor.addReader(self._descriptor)
        self._read_later()  # what has happened by now may not make the descriptor readable

    def _close(self) -> None:
        for call in (self._more, self._watch):
            if call is not None and call.active():
                call.cancel()
        self._more = self._watch = None
        if self._descriptor is not None:
            self._reactor.removeReader(self._descriptor)
            self._descriptor = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.address = None

    def _connect_again(self, why: str) -> None:
        """Give the connection up, and take the next address after the back-off."""
        self._close()
        level = LogLevel.info if self._state == "DOWN" else LogLevel.warn  # that it is still DOWN is no news
        self._state = "DOWN"
        self.log.emit(
            level,
            "{why}: the live feed is DOWN, {next} is tried in {seconds:g} s",
            why=why,
            next=self._addresses[self.attempts % len(self._addresses)],
            seconds=self._back_off,
        )
        self._watch = self._reactor.callLater(self._back_off, self._try)
        self._back_off = min(2 * self._back_off, self._limits.back_off)

    def _try(self) -> None:
        try:
            self._connect()
        except zmq.ZMQError as error:  # one of the further addresses is none to libzmq, or no file may be opened
            self._connect_again(f"Cannot connect: {error}")

    def _look(self) -> None:
        """See whether there was silence for long enough, and if not, when there will have been."""
        now, silence = self._reactor.seconds(), self._limits.silence
        self._heard = min(self._heard, now)  # both are in the future after the clock was set back
        self.last = None if self.last is None else min(self.last, now)
        if not self._can_tell(now):
            self._heard = now
        elif now - self._heard >= silence:
            self._connect_again(f"Nothing came from {self.address} for {silence:g} s")
            return
        elif self._state == "UNKNOWN":
            self._turn("DOWN", f"only heartbeats came for {silence:g} s")
        elif self._state != "DOWN" and self.last is not None and now - self.last >= QUIET:
            self._turn("DOWN", f"only heartbeats came for {now - self.last:.0f} s")
        self._watch = self._reactor.callLater(self._heard + silence - now, self._look)

    def _can_tell(self, now: float) -> bool:
        """Tell whether nothing read means that nothing came."""
        assert self._socket is not None
        assert self._watch is not None
        if self._consuming is not None:
            self.incidents.add("slow", "Messages of the live feed wait: the last one is still being taken in")
            return False
        if _waits(self._socket):
            self._read_later()
            return False
        late = now - self._watch.getTime()  # when the clock was set forward, or the process stood still
        return late < LATE

    def _ready(self) -> None:
        """Read in a call of its own: what fails there does not make the reactor drop the descriptor."""
        if self._socket is not None:
            _waits(self._socket)  # takes the readiness back, or the reactor would go round and round
            self._read_later()

    def _read_later(self) -> None:
        if self._more is None and self._consuming is None:
            self._more = self._reactor.callLater(0, self._read)

    def _read(self) -> None:
        """Read for one turn.

        libzmq makes the descriptor readable once for all that waits, so reading goes on until nothing does.
        """
        self._more = None
        socket, began = self._socket, self._reactor.seconds()
        assert socket is not None
        assert self._watch is not None
        if self._watch.getTime() - began > self._limits.silence:  # the clock was set back
            self._watch.reset(self._limits.silence)
        try:
            for _ in range(TURN_MESSAGES):
                if not _waits(socket):
                    return
                self._take(socket.recv_multipart(zmq.NOBLOCK))
                if self._socket is not socket or self._consuming is not None:
                    return
                if not 0 <= self._reactor.seconds() - began < TURN:
                    break
        except zmq.ZMQError as error:
            self._connect_again(f"Cannot read from {self.address}: {error.strerror}")
        else:
            self._read_later()

    def _take(self, frames: list[bytes]) -> None:
        """Take a message: its envelope and its data in as many frames as it likes, or an envelope alone."""
        self.alive = self._heard = now = self._reactor.seconds()
        if len(frames) == 1:  # a heartbeat
            return
        size = sum(map(len, frames))
        if size > self._limits.message:  # libzmq's limit is that of each frame
            self.incidents.add("too large", "A message of the live feed of {size} bytes: left out", size=size)
            return
        try:
            envelope = frames[0].decode("ascii")
        except UnicodeDecodeError:
            self.incidents.add(
                "envelope", "A message of the live feed in {envelope}: left out", envelope=frames[0][:100]
            )
            return
        data = b"".join(frames[1:])
        if not data:
            self.incidents.add(
                "empty", "A message of the live feed in {envelope} has no data: left out", envelope=envelope
            )
            return
        self.last = now
        self._back_off = min(FIRST_BACK_OFF, self._limits.back_off)
        self._data_came(now)
        try:
            consuming = self._received(envelope, data)
        except Exception:
            self._not_consumed(Failure(), envelope)
            return
        if consuming is not None:
            self._consuming = consuming
            consuming.addErrback(self._not_consumed, envelope)
            consuming.addCallback(self._consumed)

    def _data_came(self, now: float) -> None:
        if self._state in ("UNKNOWN", "DOWN"):
            self._recovering = now
            self._turn("RECOVERING", "data comes")
        elif self._state == "RECOVERING":
            if now < self._recovering:  # the clock was set back
                self._recovering = now
            if now - self._recovering >= self._limits.recovery:
                self._turn("UP", f"data has come for {self._limits.recovery:g} s")

    def _turn(self, state: State, why: str) -> None:
        self._state = state
        level = LogLevel.warn if state == "DOWN" else LogLevel.info
        self.log.emit(
            level, "The live feed from {address} is {state}: {why}", address=self.address, state=state, why=why
        )

    def _not_consumed(self, failure: Failure, envelope: str) -> None:
        self.incidents.add(
            "not consumed",
            "A message of the live feed in {envelope} could not be taken in: {error}",
            envelope=envelope,
            error=repr(failure.value),
        )

    def _consumed(self, _: None) -> None:
        self._consuming = None
        if self._socket is not None:
            self._read_later()


def _waits(socket: "zmq.Socket[bytes]") -> bool:
    """Tell whether a message waits; makes the descriptor unreadable until something happens again."""
    return bool(cast(int, socket.get(zmq.EVENTS)) & zmq.POLLIN)


def _check(address: str) -> None:
    """Raise CannotStart for what libzmq would not take, or would never reach."""
    scheme, _, path = address.partition("://")
    if scheme == "tcp":
        tcp = _TCP.fullmatch(path)
        good = tcp is not None and 0 < int(tcp[1]) < 65536
    else:
        good = scheme in ("ipc", "inproc") and 0 < len(os.fsencode(path)) <= zmq.IPC_PATH_MAX_LEN
    if not good:
        raise StartupError(f"{address!r} is no address of a KV78turbo feed: it is of the form tcp://host:port")
