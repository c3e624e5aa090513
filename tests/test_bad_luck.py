"""Bad luck that befalls the whole program, put together as it is: clocks that jump, a feed that falls silent.

Only what it is connected to is not real: its clock, the sockets of the feed, and what posts to the gateway.
"""

import gzip
import json
import os
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, cast
from unittest.mock import Mock, patch

from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock, StringTransport
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from govi_server import tap
from govi_server.departures.board import Board, Trip
from govi_server.departures.times import HOUR
from govi_server.kv55 import messages
from govi_server.kv55.post import PostError
from govi_server.runtime.clock import ClockWatch
from govi_server.server import Server
from govi_server.tap import Options
from tests import feed as kv
from tests.client import NOW, Answer, Client, read_answers
from tests.doubles import FakePoster
from tests.kv78turbo.test_subscriber import FakeSockets

CODE = "57330430"
LIVE = "30000001"
PLANNED = "30000002"

# One that is on a board while the clock is an hour back, and one that is when an hour has gone by.
JOURNEYS: list[kv.Row] = [
    {"JourneyNumber": "1001", "ExpectedArrivalTime": "01:45:00", "ExpectedDepartureTime": "01:45:00"},
    {"JourneyNumber": "1002", "ExpectedArrivalTime": "02:45:00", "ExpectedDepartureTime": "02:45:00"},
]

GATEWAY = "[modules.kv55]\nsource = 'govi'\n"
FEED = "[modules.live]\nsource = 'kv78turbo'\n[feed]\naddresses = ['tcp://feed.example:7817']\n"


class ProgramTestCase(SynchronousTestCase):
    """Has the running program."""

    toml = GATEWAY + FEED

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.reactor = MemoryReactorClock()
        self.reactor.advance(NOW)
        self.running_for = 0.0
        self.poster = FakePoster()
        self.sockets = FakeSockets()
        self.sockets.clock = self.reactor
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)
        for name, double in {
            "govi_server.runtime.clock.Thread": Mock(),  # the test has the clock looked at
            "govi_server.application.ClockWatch": partial(ClockWatch, monotonic=lambda: self.running_for),
            "govi_server.application.Poster": lambda *_: self.poster,
            "govi_server.kv78turbo.subscriber._Sockets": lambda *_: self.sockets,
        }.items():
            patched = patch(name, double)
            patched.start()
            self.addCleanup(patched.stop)
        config = os.path.join(self.folder, "config.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(self.toml)
        options = Options()
        options.parseOptions(["--config", config, "--snapshot", f"{self.folder}/snapshot"])
        self.service = cast(MultiService, tap.makeService(options, self.reactor))
        self.service.privilegedStartService()
        self.service.startService()
        self.addCleanup(self.stop)
        (self.watch,) = (service for service in self.service if isinstance(service, ClockWatch))
        self.run_for(0)

    def stop(self) -> None:
        for _, factory, _, _ in self.reactor.tcpServers:
            for handler in list(getattr(factory, "connections", ())):
                handler.connectionLost(Failure(ConnectionDone()))
        stopped = cast("Deferred[object]", self.service.stopService())
        self.run_for(15)
        self.successResultOf(stopped)

    def factory(self, what: str) -> Any:
        (factory,) = (f for _, f, _, _ in self.reactor.tcpServers if cast(Server, f).logPrefix() == what)
        return factory

    # Time.

    def run_for(self, seconds: float) -> None:
        """Let time go by, in steps small enough for what works in slices."""
        self.reactor.pump([0.01] * 5)
        self.running_for += 0.05
        for _ in range(int(seconds)):
            self.reactor.advance(1)
            self.running_for += 1
            self.watch.check()

    def set_clock(self, seconds: float) -> None:
        """Set the clock of the system forward, or back."""
        self.reactor.rightNow += seconds
        self.watch.check()
        self.run_for(0)

    # What comes in.

    def ask(self, path: str) -> Client:
        client = Client(self.factory("govi-cache"))
        client.get(path)
        return client

    def get(self, path: str) -> Answer:
        return self.ask(path).answer()

    def operators(self, path: str) -> Answer:
        """Ask the operators' endpoint."""
        protocol, transport = self.factory("operators").buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        (answer,) = read_answers(transport.value())
        return answer

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.operators("/status.json").body)
        return status

    def metric(self, name: str) -> float | None:
        """Give the first metric whose name and labels begin so."""
        lines = self.operators("/metrics").body.decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), None)

    def call_back(self, code: str = CODE) -> int:
        """Have the gateway answer for a stop; give what it is told."""
        board = Board(code, (Trip(operating_date="2026-01-01", data_owner_code="LIN"),), 0.0)
        body = messages.write_dris_55([board], None)
        client = Client(self.factory("kv55 callbacks"), addr=IPv4Address("TCP", "127.0.0.1", 4711))
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return client.answer().status

    def answered(self, code: str = CODE) -> Answer:
        """Ask for a stop that the gateway answers for at once, if it is asked."""
        asked = len(self.poster.posts)
        client = self.ask(f"/kv55/{code}")
        if len(self.poster.posts) > asked:
            self.poster.posts[-1].callback(None)
            self.assertEqual(self.call_back(code), 200)
        return client.answer()

    def speak(self, *said: bytes) -> None:
        """Have the feed say something; if nothing else, that the journeys are on their way as ever."""
        for message in said or (kv.passtimes(*JOURNEYS),):
            self.sockets.sockets[-1].messages.append([b"/GOVI/KV8passtimes/LIN", gzip.compress(message)])
        for reader in self.reactor.getReaders():
            cast(IReadDescriptor, reader).doRead()
        self.run_for(0)

    def speak_for(self, seconds: int) -> None:
        """Have the feed repeat itself every twenty seconds."""
        for _ in range(0, seconds, 20):
            self.speak()
            self.run_for(20)
        self.speak()

    def plan(self) -> None:
        """Have the feed plan a stop that nobody says more of."""
        late = {"TargetArrivalTime": "02:45:00", "TargetDepartureTime": "02:45:00", "UserStopCode": "u2"}
        self.speak(
            kv.planning(
                late,
                points=({"TimingPointCode": PLANNED},),
                user_stops=({"TimingPointCode": PLANNED, "UserStopCode": "u2"},),
            ),
            kv.calendar("2026-01-01"),
        )

    def warnings(self, containing: str = "") -> list[str]:
        """List the warnings, and what is worse, since this was last asked."""
        serious = (LogLevel.warn, LogLevel.error, LogLevel.critical)
        texts = [formatEvent(event) for event in self.events if event.get("log_level") in serious]
        globalLogPublisher.removeObserver(self.events)
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)
        return [text for text in texts if containing in text]


class FeedTests(ProgramTestCase):
    """The feed, silent for an hour."""

    toml = FEED

    def test_silent_for_an_hour(self) -> None:
        """What it said goes from fresh to stale to 503, what is planned stays; when it speaks all is as before."""
        self.plan()
        self.speak_for(120)
        answer = self.get(f"/live/{LIVE}")
        self.assertEqual((answer.status, answer.headers["Feed-State"], answer.headers["Age"]), (200, "UP", None))
        self.assertEqual(self.get(f"/live/{PLANNED}").headers["Age"], None)
        self.assertEqual((self.operators("/ready").body, self.status()["verdict"]), (b"ready\n", "UP"))
        self.assertEqual(self.warnings(), [])

        self.run_for(65)
        answer = self.get(f"/live/{LIVE}")
        self.assertEqual((answer.status, answer.headers["Feed-State"], answer.headers["Age"]), (200, "DOWN", "66"))
        self.assertIn("ttl=-", answer.headers["Cache-Status"])
        self.assertEqual(self.get(f"/live/{PLANNED}").headers["Feed-State"], "DOWN")
        (line,) = self.warnings()
        self.assertIn("Nothing came from tcp://feed.example:7817 for 60 s: the live feed is DOWN", line)

        self.run_for(HOUR)
        answer = self.get(f"/live/{LIVE}")
        self.assertEqual((answer.status, answer.headers["Retry-After"]), (503, "30"))
        self.assertIn(b"<Error>Too old</Error>", answer.body)
        answer = self.get(f"/live/{PLANNED}")
        self.assertEqual((answer.status, answer.headers["Feed-State"]), (200, "DOWN"))
        self.assertGreater(int(answer.headers["Age"]), HOUR)
        ready = self.operators("/ready")
        self.assertEqual(ready.status, 503)
        self.assertIn(b"Live feed DOWN: last data received 36", ready.body)
        status = self.status()
        self.assertEqual((status["verdict"], status["feed"]["state"]), ("DOWN", "DOWN"))
        self.assertRegex(status["why"][0], r"^Live feed DOWN since .* \(last data received 36")
        self.assertEqual(self.metric('govi_feed_state{state="DOWN"}'), 1)
        self.assertEqual(self.metric('govi_verdict{verdict="DOWN"}'), 1)
        self.assertGreater(self.metric('govi_feed_age_seconds{owner="LIN"}') or 0, HOUR)
        self.assertEqual(self.warnings(), [])  # it was told, and each attempt is no news

        self.speak_until_up()
        self.assertEqual(self.get(f"/live/{LIVE}").headers["Feed-State"], "UP")
        self.assertEqual(self.get(f"/live/{PLANNED}").headers["Age"], None)
        self.assertEqual((self.operators("/ready").body, self.status()["verdict"]), (b"ready\n", "UP"))
        self.assertEqual(self.warnings(), [])

    def speak_until_up(self) -> None:
        """Have the feed speak again when it is connected to; it is RECOVERING first, then UP."""
        while self.status()["feed"]["address"] is None:
            self.run_for(1)
        self.speak()
        status = self.status()
        self.assertEqual((status["feed"]["state"], status["verdict"]), ("RECOVERING", "RECOVERING"))
        self.assertEqual(self.get(f"/live/{LIVE}").headers["Age"], None)
        self.assertEqual(self.operators("/ready").status, 200)
        self.speak_for(80)


class ClockTests(ProgramTestCase):
    """A clock that is set."""

    def setUp(self) -> None:
        super().setUp()
        self.speak_for(120)
        self.answered()
        self.run_for(10)
        self.assertEqual(self.status()["verdict"], "UP")

    def test_back_nobody_hangs(self) -> None:
        """Who waits for an answer that never comes is told so in time, and who comes then does not wait for it."""
        first = self.ask("/kv55/1")
        silent = Client(self.factory("govi-cache"))
        self.poster.posts[-1].callback(None)
        self.set_clock(-HOUR)
        self.assertEqual(self.warnings(), ["System clock: set back by 3600 s"])
        self.run_for(14)
        self.assertEqual((first.answer().status, silent.answer().status), (406, 406))
        self.assertEqual(self.answered("1").status, 200)

    def test_back_boards(self) -> None:
        """A board from the future is asked for anew, who is silent from then on is stale, then too old."""
        self.set_clock(-HOUR)
        self.assertIn("fwd=miss", self.answered().headers["Cache-Status"])
        self.assertIn("hit", self.answered().headers["Cache-Status"])
        self.assertEqual(self.get(f"/live/{LIVE}").status, 200)
        self.run_for(130)
        self.assertEqual(self.status()["feed"]["state"], "DOWN")
        answer = self.get(f"/live/{LIVE}")
        self.assertEqual((answer.status, answer.headers["Feed-State"]), (200, "DOWN"))
        self.assertGreater(int(answer.headers["Age"]), 60)
        self.run_for(300)
        self.assertEqual(self.get(f"/live/{LIVE}").status, 503)

    def test_back_operators(self) -> None:
        """Nothing is said of a future: not by the verdict, not by the last hour; the snapshot is made as before."""
        for code in range(10):
            client = self.ask(f"/kv55/{code}")
            self.poster.posts[-1].errback(PostError("refused"))
            self.assertEqual(client.answer().status, 504)
            client.leave()
        self.assertEqual(self.status()["verdict"], "DEGRADED")
        self.set_clock(-HOUR)
        status = self.status()
        self.assertLessEqual(status["since"], status["now"])
        self.assertEqual(sum(status["hour"]["outcomes"]["timeout"]), 0)
        os.remove(f"{self.folder}/snapshot")
        self.answered()
        self.speak_for(120)
        self.assertTrue(os.path.exists(f"{self.folder}/snapshot"))
        self.speak_for(HOUR)  # until the time has come again in which they failed
        status = self.status()
        self.assertEqual((status["verdict"], sum(status["hour"]["outcomes"]["timeout"])), ("UP", 0))

    def test_back_durations(self) -> None:
        """A request that was under way has not lasted less than nothing."""
        client = self.ask("/kv55/1")
        self.set_clock(-HOUR)
        self.poster.posts[-1].callback(None)
        self.assertEqual(self.call_back("1"), 200)
        self.assertEqual(client.answer().status, 200)
        client.leave()
        for metric in ('govi_request_phase_seconds_sum{phase="wait"}', "govi_gateway_callback_seconds_sum"):
            self.assertEqual(self.metric(metric), 0)

    def test_breaker(self) -> None:
        """The gateway that does not take questions is tried in time, wherever the clock goes."""
        for step in (-HOUR, HOUR):
            for code in range(10):
                self.ask(f"/kv55/{code}")
                self.poster.posts[-1].errback(PostError("refused"))
            self.assertEqual(self.status()["gateways"]["kv55"]["breaker"], "open")
            self.set_clock(step)
            self.run_for(6)
            self.assertEqual(self.answered("77").status, 200)
            self.assertEqual(self.status()["gateways"]["kv55"]["breaker"], "closed")

    def test_forward(self) -> None:
        """What is in memory is an hour old at once and not served, who waits is told so, and all is well again."""
        waiting = self.ask("/kv55/1")
        self.set_clock(HOUR)
        self.assertIn(waiting.answer().status, (406, 504))
        self.assertEqual(self.warnings("clock"), ["System clock: set forward by 3600 s"])
        self.assertIn("fwd=miss", self.answered().headers["Cache-Status"])
        self.assertEqual(self.get(f"/live/{LIVE}").status, 503)
        self.speak_for(180)
        self.assertEqual(self.get(f"/live/{LIVE}").headers["Age"], None)
        self.assertEqual((self.status()["verdict"], self.status()["feed"]["state"]), ("UP", "UP"))

    def test_small_step(self) -> None:
        """A step of a few seconds, as NTP makes them, changes nothing for anybody."""
        for step in (-3.0, 3.0):
            waiting = self.ask("/kv55/1")
            self.set_clock(step)
            self.poster.posts[-1].callback(None)
            self.run_for(2)
            self.call_back("1")
            self.assertEqual(waiting.answer().status, 200)
            self.assertEqual(self.answered("1").status, 200)
            self.assertEqual(self.get(f"/live/{LIVE}").headers["Age"], None)
            self.assertEqual(self.status()["verdict"], "UP")
            self.speak_for(400)  # until the stop is asked for anew
