"""The ZeroMQ socket to which the servers of a site subscribe."""

from collections.abc import Callable, Sequence
from typing import Any

import zmq
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zmq.utils.monitor import parse_monitor_message

from govi_server.kv78turbo.zmq_sockets import (
    KEEPALIVE_IDLE_SECONDS,
    Socket,
    SocketDescriptor,
    bind,
    check_address,
    has_message,
    is_listening_address,
)
from govi_server.runtime.throttled_warnings import ThrottledWarnings

MAX_QUEUED_MESSAGES = 2000
"""Messages that wait for a subscriber that does not read; it loses further ones. All subscribers share the memory of
a message, which is at most that of SubscriberSettings.message."""

MAX_UNREAD_SECONDS = 60
"""Time after which a subscriber that acknowledges nothing is disconnected, which frees its messages."""

MAX_TOPIC_BYTES = 256
"""Size of a topic; libzmq disconnects a subscriber that sends a longer one."""

MAX_TOPICS = 1000
"""Topics that are reported; a server subscribes to two."""

MAX_TURN_EVENTS = 200
"""Subscriptions, and connections, that are read in one turn of the reactor."""


class Publisher(Service):
    """Publishes messages to any number of subscribers, none of which waits for another.

    reactor: an IReactorTime, IReactorFDSet and IReactorThreads. address: to listen on. subscribed, unsubscribed:
    called with a topic at its first subscription, and after its last one has ended. Raises StartupError for an
    invalid address.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        address: str,
        subscribed: Callable[[bytes], object],
        unsubscribed: Callable[[bytes], object],
        max_queued: int = MAX_QUEUED_MESSAGES,
    ) -> None:
        check_address("--publish", address, is_listening_address)
        self._reactor = reactor
        self.address = address
        self._subscribed = subscribed
        self._unsubscribed = unsubscribed
        self._max_queued = max_queued
        self._warnings = ThrottledWarnings(self.log, reactor)
        self._context: zmq.Context[Socket] | None = None
        self._socket: Socket | None = None
        self._monitor: Socket | None = None
        self._descriptors: list[SocketDescriptor] = []
        self._read_call: IDelayedCall | None = None
        """The next turn of reading, if the last one did not read all."""
        self._connections: set[int] = set()
        self.topics: set[bytes] = set()
        """The topics of all subscribers."""

    @property
    def subscribers(self) -> int:
        """The number of connected subscribers."""
        return len(self._connections)

    def privilegedStartService(self) -> None:
        """Listen. Raises StartupError, for example if the address is in use."""
        super().privilegedStartService()
        self._context = zmq.Context()  # not earlier: its threads would not survive twistd's fork
        self._socket = socket = self._context.socket(zmq.XPUB)  # a PUB that reports subscriptions
        socket.linger = 0
        socket.sndhwm = self._max_queued
        socket.maxmsgsize = 1 + MAX_TOPIC_BYTES
        socket.tcp_keepalive = 1
        socket.tcp_keepalive_idle = KEEPALIVE_IDLE_SECONDS
        # Keep-alive detects subscribers that are gone; this also those that no longer read.
        socket.tcp_maxrt = 1000 * MAX_UNREAD_SECONDS
        self._monitor = socket.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        try:
            self.address = bind(socket, self.address, "--publish")
        except BaseException:
            self._close()
            self._context.term()
            raise

    def startService(self) -> None:
        """Start receiving subscriptions."""
        if self._socket is None:
            self.privilegedStartService()
        super().startService()
        assert self._socket is not None
        assert self._monitor is not None
        self.log.info("Feed proxy: publishing on {address}", address=self.address)
        self._descriptors = [SocketDescriptor(socket, self._read) for socket in (self._socket, self._monitor)]
        for descriptor in self._descriptors:
            self._reactor.addReader(descriptor)
        self._read()  # earlier events may not make a descriptor readable

    def stopService(self) -> Deferred[None]:
        """Close the socket; fires when libzmq's threads have ended."""
        super().stopService()
        self._close()
        assert self._context is not None
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._context.term)

    def _close(self) -> None:
        for descriptor in self._descriptors:
            self._reactor.removeReader(descriptor)
        self._descriptors.clear()
        if self._read_call is not None:
            self._read_call.cancel()
            self._read_call = None
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close()
            self._socket = None
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def send(self, frames: Sequence[bytes]) -> None:
        """Publish a message; it is lost for subscribers that are too slow."""
        if self._socket is None:
            return
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            self._warnings.add("send", "Feed proxy: cannot publish: {error}", error=error.strerror)
            return
        self._read()  # sending may have made the descriptor unreadable

    def _read(self) -> None:
        """Read what the sockets report, up to MAX_TURN_EVENTS of each, and the rest in later turns."""
        for socket, read in ((self._socket, self._read_topic), (self._monitor, self._read_connection)):
            for _ in range(MAX_TURN_EVENTS):
                if socket is None or not has_message(socket):
                    break
                read(socket.recv_multipart(zmq.NOBLOCK))
            else:
                if self._read_call is None:
                    self._read_call = self._reactor.callLater(0, self._read_rest)

    def _read_rest(self) -> None:
        self._read_call = None
        self._read()

    def _read_topic(self, frames: list[bytes]) -> None:
        """Report a new topic, or one without subscribers.

        The first frame: a byte of 1 or 0 and the topic. Other messages of subscribers are ignored.
        """
        event, topic = frames[0], frames[0][1:]
        if event[:1] == b"\1" and topic not in self.topics:
            if len(self.topics) < MAX_TOPICS:
                self.topics.add(topic)
                self._subscribed(topic)
            else:
                text = "Feed proxy: topic {topic} not forwarded (maximum {limit})"
                self._warnings.add("topics", text, topic=topic, limit=MAX_TOPICS)
        elif event[:1] == b"\0" and topic in self.topics:
            self.topics.discard(topic)
            self._unsubscribed(topic)

    def _read_connection(self, frames: list[bytes]) -> None:
        """Count a connection that was accepted or closed."""
        event = parse_monitor_message(frames)
        if event["event"] == zmq.EVENT_ACCEPTED:
            self._connections.add(event["value"])  # the number of its file descriptor
        else:
            self._connections.discard(event["value"])
