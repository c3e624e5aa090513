"""Tests of the whole program during failures: a clock that is set, a silent feed.

Only the clock, the sockets of the feed and the poster of gateway requests are doubles.
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
from govi_server.kv55.post_connection import PostError
from govi_server.runtime.clock import ClockWatch
from govi_server.server import Server
from govi_server.tap import Options
from tests import feed as kv
from tests.client import NOW, Client, Response, read_responses
from tests.doubles import FakePoster
from tests.kv78turbo.test_subscriber import FakeSockets

CODE = "57330430"
LIVE = "30000001"
PLANNED = "30000002"

# The first is on the board while the clock is set back by an hour, the second an hour later.
JOURNEYS: list[kv.Row] = [
    {"JourneyNumber": "1001", "ExpectedArrivalTime": "01:45:00", "ExpectedDepartureTime": "01:45:00"},
    {"JourneyNumber": "1002", "ExpectedArrivalTime": "02:45:00", "ExpectedDepartureTime": "02:45:00"},
]

GATEWAY = "[modules.kv55]\nsource = 'govi'\ngateway_url = 'http://localhost/'\n"
FEED = "[modules.live]\nsource = 'kv78turbo'\n[feed]\naddresses = ['tcp://feed.example:7817']\ngtfs = ''\n"


class ProgramTestCase(SynchronousTestCase):
    """Tests of the running program."""

    toml = GATEWAY + FEED

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
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
            "govi_server.runtime.clock.Thread": Mock(),  # the test calls check() itself
            "govi_server.application.ClockWatch": partial(ClockWatch, monotonic=lambda: self.running_for),
            "govi_server.sources.Poster": lambda *_: self.poster,
            "govi_server.kv78turbo.subscriber.SubscriberSockets": lambda *_: self.sockets,
        }.items():
            patched = patch(name, double)
            patched.start()
            self.addCleanup(patched.stop)
        config = os.path.join(self.directory, "config.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(self.toml)
        options = Options()
        options.parseOptions(["--config", config, "--snapshot", f"{self.directory}/snapshot"])
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

    def factory(self, name: str) -> Any:
        (factory,) = (f for _, f, _, _ in self.reactor.tcpServers if cast(Server, f).logPrefix() == name)
        return factory

    # Time

    def run_for(self, seconds: float) -> None:
        """Advance the time, first in small steps, for cooperative work."""
        self.reactor.pump([0.01] * 5)
        self.running_for += 0.05
        for _ in range(int(seconds)):
            self.reactor.advance(1)
            self.running_for += 1
            self.watch.check()

    def set_clock(self, seconds: float) -> None:
        """Set the system clock forward, or back if negative."""
        self.reactor.rightNow += seconds
        self.watch.check()
        self.run_for(0)

    # Input

    def request(self, path: str) -> Client:
        """Return a client that has requested a path."""
        client = Client(self.factory("govi-cache"))
        client.get(path)
        return client

    def get(self, path: str) -> Response:
        return self.request(path).response()

    def operators(self, path: str) -> Response:
        """Return the operators' response to a path."""
        protocol, transport = self.factory("operators").buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        (response,) = read_responses(transport.value())
        return response

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.operators("/status.json").body)
        return status

    def metric(self, name: str) -> float | None:
        """Return the value of the first metric whose line starts with name."""
        lines = self.operators("/metrics").body.decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), None)

    def post_callback(self, code: str = CODE) -> int:
        """Post the gateway's response for a stop; return the status of the callback."""
        board = Board(code, (Trip(operating_date="2026-01-01", data_owner_code="LIN"),), 0.0)
        body = messages.write_dris_55([board], None)
        client = Client(self.factory("kv55 callbacks"), addr=IPv4Address("TCP", "127.0.0.1", 4711))
        client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return client.response().status

    def get_stop(self, code: str = CODE) -> Response:
        """Return the response for a stop; the gateway, if it gets a request, responds immediately."""
        posts = len(self.poster.posts)
        client = self.request(f"/kv55/{code}")
        if len(self.poster.posts) > posts:
            self.poster.posts[-1].callback(None)
            self.assertEqual(self.post_callback(code), 200)
        return client.response()

    def publish(self, *feed_messages: bytes) -> None:
        """Publish messages on the feed, by default the unchanged journeys."""
        for message in feed_messages or (kv.passtimes(*JOURNEYS),):
            self.sockets.sockets[-1].messages.append([b"/GOVI/KV8passtimes/LIN", gzip.compress(message)])
        for reader in self.reactor.getReaders():
            cast(IReadDescriptor, reader).doRead()
        self.run_for(0)

    def publish_for(self, seconds: int) -> None:
        """Publish the journeys every 20 s for so many seconds."""
        for _ in range(0, seconds, 20):
            self.publish()
            self.run_for(20)
        self.publish()

    def plan(self) -> None:
        """Publish the timetable of a stop without KV8."""
        late = {"TargetArrivalTime": "02:45:00", "TargetDepartureTime": "02:45:00", "UserStopCode": "u2"}
        self.publish(
            kv.planning(
                late,
                points=({"TimingPointCode": PLANNED},),
                user_stops=({"TimingPointCode": PLANNED, "UserStopCode": "u2"},),
            ),
            kv.calendar("2026-01-01"),
        )

    def warnings(self, containing: str = "") -> list[str]:
        """Return the warnings and errors logged since the last call."""
        levels = (LogLevel.warn, LogLevel.error, LogLevel.critical)
        texts = [formatEvent(event) for event in self.events if event.get("log_level") in levels]
        globalLogPublisher.removeObserver(self.events)
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)
        return [text for text in texts if containing in text]


class FeedTests(ProgramTestCase):
    """Tests of a silent feed."""

    toml = FEED

    def test_silent_for_an_hour(self) -> None:
        """Live departures become stale, then a 503, planned ones remain; all recovers when data arrives again."""
        self.plan()
        self.publish_for(120)
        response = self.get(f"/live/{LIVE}")
        self.assertEqual(
            (response.status, response.headers["Feed-State"], response.headers["Age"]), (200, "UP", None)
        )
        self.assertEqual(self.get(f"/live/{PLANNED}").headers["Age"], None)
        self.assertEqual((self.operators("/ready").body, self.status()["verdict"]), (b"ready\n", "UP"))
        self.assertEqual(self.warnings(), [])

        self.run_for(65)
        response = self.get(f"/live/{LIVE}")
        self.assertEqual(
            (response.status, response.headers["Feed-State"], response.headers["Age"]), (200, "DOWN", "66")
        )
        self.assertIn("ttl=-", response.headers["Cache-Status"])
        self.assertEqual(self.get(f"/live/{PLANNED}").headers["Feed-State"], "DOWN")
        (line,) = self.warnings()
        self.assertIn("Feed tcp://feed.example:7817: no data for 60 s (DOWN)", line)

        self.run_for(HOUR)
        response = self.get(f"/live/{LIVE}")
        self.assertEqual((response.status, response.headers["Retry-After"]), (503, "30"))
        self.assertIn(b"<Error>Too old</Error>", response.body)
        response = self.get(f"/live/{PLANNED}")
        self.assertEqual((response.status, response.headers["Feed-State"]), (200, "DOWN"))
        self.assertGreater(int(response.headers["Age"]), HOUR)
        ready = self.operators("/ready")
        self.assertEqual(ready.status, 503)
        self.assertIn(b"Live feed DOWN: last data received 36", ready.body)
        status = self.status()
        self.assertEqual((status["verdict"], status["feed"]["state"]), ("DOWN", "DOWN"))
        self.assertRegex(status["why"][0], r"^Live feed DOWN since .* \(last data received 36")
        self.assertEqual(self.metric('govi_feed_state{state="DOWN"}'), 1)
        self.assertEqual(self.metric('govi_verdict{verdict="DOWN"}'), 1)
        self.assertGreater(self.metric('govi_feed_age_seconds{owner="LIN"}') or 0, HOUR)
        self.assertEqual(self.warnings(), [])  # the silence was logged before, and reconnections are not

        self.publish_until_up()
        self.assertEqual(self.get(f"/live/{LIVE}").headers["Feed-State"], "UP")
        self.assertEqual(self.get(f"/live/{PLANNED}").headers["Age"], None)
        self.assertEqual((self.operators("/ready").body, self.status()["verdict"]), (b"ready\n", "UP"))
        self.assertEqual(self.warnings(), [])

    def publish_until_up(self) -> None:
        """Publish again after the reconnection; the state is RECOVERING, then UP."""
        while self.status()["feed"]["address"] is None:
            self.run_for(1)
        self.publish()
        status = self.status()
        self.assertEqual((status["feed"]["state"], status["verdict"]), ("RECOVERING", "RECOVERING"))
        self.assertEqual(self.get(f"/live/{LIVE}").headers["Age"], None)
        self.assertEqual(self.operators("/ready").status, 200)
        self.publish_for(80)


class ClockTests(ProgramTestCase):
    """Tests of a system clock that is set."""

    def setUp(self) -> None:
        super().setUp()
        self.publish_for(120)
        self.get_stop()
        self.run_for(10)
        self.assertEqual(self.status()["verdict"], "UP")

    def test_set_back_deadlines_expire(self) -> None:
        """Pending requests end at their deadline, and later requests do not wait for them."""
        pending = self.request("/kv55/1")
        silent = Client(self.factory("govi-cache"))
        self.poster.posts[-1].callback(None)
        self.set_clock(-HOUR)
        self.assertEqual(self.warnings(), ["System clock: set back by 3600 s"])
        self.run_for(14)
        self.assertEqual((pending.response().status, silent.response().status), (406, 406))
        self.assertEqual(self.get_stop("1").status, 200)

    def test_set_back_boards_are_refetched(self) -> None:
        """A board from the future is refetched; data of a silent feed becomes stale, then too old."""
        self.set_clock(-HOUR)
        self.assertIn("fwd=miss", self.get_stop().headers["Cache-Status"])
        self.assertIn("hit", self.get_stop().headers["Cache-Status"])
        self.assertEqual(self.get(f"/live/{LIVE}").status, 200)
        self.run_for(130)
        self.assertEqual(self.status()["feed"]["state"], "DOWN")
        response = self.get(f"/live/{LIVE}")
        self.assertEqual((response.status, response.headers["Feed-State"]), (200, "DOWN"))
        self.assertGreater(int(response.headers["Age"]), 60)
        self.run_for(300)
        self.assertEqual(self.get(f"/live/{LIVE}").status, 503)

    def test_boards_from_before_are_not_fresh_again(self) -> None:
        """When a clock that was set back has caught up, boards that were received before are not fresh again."""
        self.run_for(60)
        for _ in range(3):  # also by the memo of requests
            self.get_stop()
        self.set_clock(-HOUR)
        self.run_for(HOUR)
        self.assertIn("fwd=miss", self.get_stop().headers["Cache-Status"])

    def test_set_back_dates_of_clients(self) -> None:
        """A client that has a board of before the clock was set back gets a newer one, whose date is earlier."""
        modified = self.get_stop().headers["Last-Modified"]
        self.set_clock(-HOUR)
        for _ in range(3):  # also by the memo of requests
            self.get_stop()
            client = Client(self.factory("govi-cache"))
            client.get(f"/kv55/{CODE}", If_Modified_Since=modified)
            self.assertEqual(client.response().status, 200)

    def test_set_back_late_callbacks(self) -> None:
        """A callback is rejected five minutes after its request, also if the clock was set back meanwhile."""
        for code, step, seconds, status in (("1", -HOUR, 310, 403), ("2", -HOUR, 290, 200), ("3", -60, 310, 403)):
            self.request(f"/kv55/{code}").leave()
            self.poster.posts[-1].callback(None)
            self.run_for(1)
            self.set_clock(step)
            self.run_for(seconds)
            self.assertEqual(self.post_callback(code), status, (step, seconds))

    def test_set_back_status_and_snapshot(self) -> None:
        """Health and history ignore the future, and snapshots are still written."""
        for code in range(10):
            client = self.request(f"/kv55/{code}")
            self.poster.posts[-1].errback(PostError("refused"))
            self.assertEqual(client.response().status, 504)
            client.leave()
        self.assertEqual(self.status()["verdict"], "DEGRADED")
        self.set_clock(-HOUR)
        status = self.status()
        self.assertLessEqual(status["since"], status["now"])
        self.assertEqual(sum(status["hour"]["outcomes"]["timeout"]), 0)
        os.remove(f"{self.directory}/snapshot")
        self.get_stop()
        self.publish_for(120)
        self.assertTrue(os.path.exists(f"{self.directory}/snapshot"))
        self.publish_for(HOUR)  # until the time of the failures
        status = self.status()
        self.assertEqual((status["verdict"], sum(status["hour"]["outcomes"]["timeout"])), ("UP", 0))

    def test_set_back_durations_are_not_negative(self) -> None:
        """The duration of a request in flight is not negative."""
        client = self.request("/kv55/1")
        self.set_clock(-HOUR)
        self.poster.posts[-1].callback(None)
        self.assertEqual(self.post_callback("1"), 200)
        self.assertEqual(client.response().status, 200)
        client.leave()
        for metric in ('govi_request_phase_seconds_sum{phase="wait"}', "govi_gateway_callback_seconds_sum"):
            self.assertTrue(0 <= (self.metric(metric) or 0) < 1, metric)

    def test_open_breaker_sends_its_probe(self) -> None:
        """An open breaker sends its probe in time after the clock is set back or forward."""
        for step in (-HOUR, HOUR):
            for code in range(10):
                self.request(f"/kv55/{code}")
                self.poster.posts[-1].errback(PostError("refused"))
            self.assertEqual(self.status()["gateways"]["kv55"]["breaker"], "open")
            self.set_clock(step)
            self.run_for(6)
            self.assertEqual(self.get_stop("77").status, 200)
            self.assertEqual(self.status()["gateways"]["kv55"]["breaker"], "closed")

    def test_set_forward_expires_boards(self) -> None:
        """Cached boards are too old immediately, requests in flight end, and all recovers."""
        waiting = self.request("/kv55/1")
        self.set_clock(HOUR)
        self.assertIn(waiting.response().status, (406, 504))
        self.assertEqual(self.warnings("clock"), ["System clock: set forward by 3600 s"])
        self.assertIn("fwd=miss", self.get_stop().headers["Cache-Status"])
        self.assertEqual(self.get(f"/live/{LIVE}").status, 503)
        self.publish_for(180)
        self.assertEqual(self.get(f"/live/{LIVE}").headers["Age"], None)
        self.assertEqual((self.status()["verdict"], self.status()["feed"]["state"]), ("UP", "UP"))

    def test_small_step_has_no_effect(self) -> None:
        """A step of a few seconds, such as by NTP, has no effect."""
        for step in (-3.0, 3.0):
            waiting = self.request("/kv55/1")
            self.set_clock(step)
            self.poster.posts[-1].callback(None)
            self.run_for(2)
            self.post_callback("1")
            self.assertEqual(waiting.response().status, 200)
            self.assertEqual(self.get_stop("1").status, 200)
            self.assertEqual(self.get(f"/live/{LIVE}").headers["Age"], None)
            self.assertEqual(self.status()["verdict"], "UP")
            self.publish_for(400)  # until the stop is refetched
