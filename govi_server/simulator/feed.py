"""The simulated KV78turbo feed: says over ZeroMQ what the town or a recording has to say.

However fast the town's time goes, cycles and pauses are of real seconds, as who reads the feed counts them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import cast

import zmq
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from govi_server.departures.times import MINUTE
from govi_server.errors import StartupError
from govi_server.simulator.faults import Faults, Way
from govi_server.simulator.replay import Replay
from govi_server.simulator.town import Town
from govi_server.simulator.town_feed import Message, TownFeed

HEARTBEAT = 10
"""Seconds between two envelopes alone."""
SILENCE_EVERY = 3 * MINUTE
"""How long the feed speaks before it is silent for a time, when it is to be."""


ANY_PORT = "tcp://127.0.0.1:*"
"""The address of a feed for this machine alone, on a port that the system picks."""

_ADDRESS = re.compile(r"ipc://.+|tcp://.+:(\d{1,5}|\*)", re.ASCII)


class Publisher:
    """A ZeroMQ socket that says things to whoever subscribes.

    address: such as tcp://127.0.0.1:7817. Raises CannotStart for what is none.
    """

    def __init__(self, address: str) -> None:
        match = _ADDRESS.fullmatch(address)
        port = match and match[1]
        if match is None or not (port in (None, "*") or 0 < int(port) < 65536):  # libzmq takes any number
            raise StartupError(f"{address!r} is no address of a feed: it is of the form tcp://127.0.0.1:7817")
        self._address = address
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def open(self) -> str:
        """Listen, and give the address. Raises CannotStart."""
        self._context = zmq.Context()  # not sooner: its threads would not survive twistd's fork
        socket = self._context.socket(zmq.XPUB)  # a PUB that tells who subscribes
        socket.linger = 0
        socket.ipv6 = "[" in self._address
        try:
            socket.bind(self._address)
        except zmq.ZMQError as error:
            socket.close()
            self._context.term()
            reason = zmq.strerror(error.errno or 0)
            raise StartupError(f"cannot listen on {self._address} for the feed: {reason}") from None
        self._socket = socket
        return cast(bytes, socket.last_endpoint).decode().rstrip("\0")

    def subscribed(self) -> bool:
        """Tell whether anybody has subscribed since this was last asked."""
        assert self._socket is not None
        told = []
        while self._socket.poll(0):
            told.append(self._socket.recv(zmq.NOBLOCK))
        return any(message.startswith(b"\1") for message in told)  # the others have left

    def send(self, frames: Sequence[bytes]) -> None:
        """Say something; it is lost for whoever is too slow."""
        assert self._socket is not None
        self._socket.send_multipart(frames, zmq.NOBLOCK)

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None and self._context is not None:
            self._socket.close()
            self._context.term()
            self._socket = self._context = None


class SimulatedFeed(Service):
    """Says what its source has to say, and heartbeats. silence: seconds, every few minutes.

    way: of its messages to the publisher. listening: called with the publisher's address once it listens there.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        publisher: Publisher,
        source: TownFeed | Replay,
        way: Way,
        silence: float = 0.0,
        listening: Callable[[str], object] = lambda address: None,
    ) -> None:
        self._clock = clock
        self._publisher = publisher
        self._source = source
        self._way = way
        self._silence = silence
        self._listening = listening
        self._is_silent = False
        self._saying: Iterator[tuple[list[Message], float]] = iter(())
        self._next: IDelayedCall | None = None
        self._turn: IDelayedCall | None = None  # from speech to silence, or back
        self._beating = LoopingCall(self._beat)
        self._beating.clock = clock

    def privilegedStartService(self) -> None:
        """Listen. Raises CannotStart, for example when the address is taken."""
        super().privilegedStartService()
        address = self._publisher.open()
        self.log.info("Listening on {address} for the feed of {source}", address=address, source=self._source)
        self._listening(address)

    def startService(self) -> None:
        """Begin to speak, at once or when somebody listens."""
        super().startService()
        self._beating.start(HEARTBEAT)
        if self._silence:
            self._turn = self._clock.callLater(SILENCE_EVERY, self._be_silent)
        self._saying = iter(self._source)
        self._next = self._clock.callLater(0, self._wait if self._source.waits else self._say)

    def stopService(self) -> None:
        """Say no more."""
        super().stopService()
        if self._beating.running:
            self._beating.stop()
        for call in (self._next, self._turn):
            if call is not None and call.active():
                call.cancel()
        self._publisher.close()

    def _wait(self) -> None:
        """Wait for a subscriber, and a moment for the rest of its subscriptions: what is said before is lost."""
        is_there = self._publisher.subscribed()
        self._next = self._clock.callLater(0.1, self._say if is_there else self._wait)

    def _say(self) -> None:
        self._publisher.subscribed()  # or they would pile up
        messages, pause = next(self._saying, ([], None))
        for message in messages:
            for frames in self._way.frames(message):
                self._send(frames)
        if pause is not None:
            self._next = self._clock.callLater(pause, self._say)
            return
        for frames in self._way.rest():
            self._send(frames)
        self.log.info("All of {source} has been sent", source=self._source)

    def _beat(self) -> None:
        """Give a sign of life to whoever has subscribed to half of the feed, too."""
        self._send([b"/GOVI/KV7heartbeat"])
        self._send([b"/GOVI/KV8heartbeat"])

    def _send(self, frames: Sequence[bytes]) -> None:
        if not self._is_silent:
            self._publisher.send(frames)

    def _be_silent(self) -> None:
        self.log.info("The feed is silent for {seconds:g} s", seconds=self._silence)
        self._is_silent = True
        self._turn = self._clock.callLater(self._silence, self._be_heard)

    def _be_heard(self) -> None:
        self.log.info("The feed is heard again")
        self._is_silent = False
        self._turn = self._clock.callLater(SILENCE_EVERY, self._be_silent)


def town_feed(clock: IReactorTime, seed: int, listening: Callable[[str], object]) -> SimulatedFeed:
    """Make the feed of the town for this machine alone, in its own time and without faults."""
    source = TownFeed(Town(seed), clock.seconds, waits=True)
    return SimulatedFeed(clock, Publisher(ANY_PORT), source, Way(Faults(), Random(seed)), listening=listening)
