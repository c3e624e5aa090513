"""The simulated KV78turbo feed: publishes the messages of the town, or of recordings, over ZeroMQ.

Cycles and pauses are in real seconds, as a subscriber measures them, at any speed of the town's time.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random

import zmq
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from govi_server.departures.times import MINUTE
from govi_server.errors import StartupError
from govi_server.kv78turbo.zmq_sockets import bind, check_address, is_listening_address
from govi_server.runtime.outside import outside
from govi_server.runtime.repeated_call import RepeatedCall
from govi_server.simulator.feed_faults import FaultInjector, FeedFaults
from govi_server.simulator.replay import Replay
from govi_server.simulator.town import Town
from govi_server.simulator.town_feed import Message, TownFeed

HEARTBEAT_INTERVAL = 10
"""Seconds between heartbeats, which are envelopes without data."""
SILENCE_INTERVAL = 3 * MINUTE
"""Seconds between silences, if enabled."""
SUBSCRIPTION_DELAY = 0.1
"""Seconds between checks for a subscriber, and from its first subscription to the first message."""
ANY_PORT = "tcp://127.0.0.1:*"
"""A free port on the loopback interface."""


class Publisher:
    """A ZeroMQ socket that publishes messages.

    address: a ZeroMQ address such as tcp://127.0.0.1:7817. Raises StartupError if it is invalid.
    make_context: returns a new ZeroMQ context.
    """

    def __init__(
        self, address: str, make_context: Callable[[], zmq.Context[zmq.Socket[bytes]]] = zmq.Context
    ) -> None:
        check_address("--feed", address, is_listening_address)
        self._address = address
        self._make_context = make_context
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def open(self) -> str:
        """Listen, and return the address. Raises StartupError."""
        self._context = self._make_context()  # not earlier: its threads would not survive twistd's fork
        socket = self._context.socket(zmq.XPUB)  # a PUB that reports subscriptions
        socket.linger = 0
        self._socket = socket
        try:
            return bind(socket, self._address, "--feed")
        except StartupError:
            self.close()
            raise

    def has_new_subscription(self) -> bool:
        """Return whether subscriptions have arrived since the last call."""
        assert self._socket is not None
        events = []
        while self._socket.poll(0):
            events.append(self._socket.recv(zmq.NOBLOCK))
        return any(event.startswith(b"\1") for event in events)  # \0 is the end of a subscription

    def send(self, frames: Sequence[bytes]) -> None:
        """Publish a message; it is lost for subscribers that are too slow."""
        assert self._socket is not None
        self._socket.send_multipart(frames, zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None and self._context is not None:
            self._socket.close()
            self._context.term()
            self._socket = self._context = None


class SimulatedFeed(Service):
    """Publishes heartbeats and the messages of a source.

    silence: seconds without any message, every few minutes; 0 for none. on_listening: called with the publisher's
    address once it listens.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        publisher: Publisher,
        source: TownFeed | Replay,
        faults: FaultInjector,
        silence: float = 0.0,
        on_listening: Callable[[str], object] = lambda address: None,
    ) -> None:
        self._clock = clock
        self._publisher = publisher
        self._source = source
        self._faults = faults
        self._silence = silence
        self._on_listening = on_listening
        self._address = ""
        self._is_silent = False
        self._messages: Iterator[tuple[list[Message], float]] = iter(())
        self._next_messages: IDelayedCall | None = None
        self._next_silence: IDelayedCall | None = None  # the next start or end of a silence
        self._heartbeats = RepeatedCall("Sending heartbeats", clock, HEARTBEAT_INTERVAL, self._send_heartbeat)

    def privilegedStartService(self) -> None:
        """Listen. Raises StartupError, for example if the address is in use."""
        super().privilegedStartService()
        self._address = self._publisher.open()
        self._on_listening(self._address)

    def startService(self) -> None:
        """Start publishing, immediately or at the first subscription."""
        super().startService()
        self.log.info("Simulated feed: listening on {address} ({source})", address=self._address, source=self._source)
        self._heartbeats.startService()
        if self._silence:
            self._next_silence = self._clock.callLater(SILENCE_INTERVAL, self._start_silence)
        self._messages = iter(self._source)
        first = self._wait_for_subscription if self._source.waits_for_subscription else self._send_messages
        self._next_messages = self._clock.callLater(0, first)

    def stopService(self) -> None:
        """Stop publishing."""
        super().stopService()
        self._heartbeats.stopService()
        for call in (self._next_messages, self._next_silence):
            if call is not None and call.active():
                call.cancel()
        self._publisher.close()

    def _wait_for_subscription(self) -> None:
        """Wait for a subscription, and shortly for further ones: earlier messages would be lost."""
        then = self._send_messages if self._publisher.has_new_subscription() else self._wait_for_subscription
        self._next_messages = self._clock.callLater(SUBSCRIPTION_DELAY, then)

    def _send_messages(self) -> None:
        self._publisher.has_new_subscription()  # so that they do not accumulate
        messages, pause = next(self._messages, ([], None))
        for message in messages:
            for frames in self._faults.frames(message):
                self._send(frames)
        if pause is not None:
            self._next_messages = self._clock.callLater(pause, self._send_messages)
            return
        for frames in self._faults.release():
            self._send(frames)
        self.log.info("Simulated feed: sent all of {source}", source=self._source)

    def _send_heartbeat(self) -> None:
        """Send a heartbeat of each kind, for subscribers to only KV7 or KV8."""
        self._send([b"/GOVI/KV7heartbeat"])
        self._send([b"/GOVI/KV8heartbeat"])

    def _send(self, frames: Sequence[bytes]) -> None:
        if not self._is_silent:
            self._publisher.send(frames)

    def _start_silence(self) -> None:
        self.log.info("Simulated feed: silent for {seconds:g} s", seconds=self._silence)
        self._is_silent = True
        self._next_silence = self._clock.callLater(self._silence, self._end_silence)

    def _end_silence(self) -> None:
        self.log.info("Simulated feed: sending again")
        self._is_silent = False
        self._next_silence = self._clock.callLater(SILENCE_INTERVAL, self._start_silence)


def make_town_feed(clock: IReactorTime, seed: int, on_listening: Callable[[str], object]) -> SimulatedFeed:
    """Return the feed of the town on the loopback interface, in real time and without faults."""
    source = TownFeed(Town(seed), clock.seconds, waits_for_subscription=True)
    faults = FaultInjector(FeedFaults(), Random(seed))
    return SimulatedFeed(
        clock,
        Publisher(ANY_PORT, outside(clock, "zmq_context", zmq.Context)),
        source,
        faults,
        on_listening=on_listening,
    )
