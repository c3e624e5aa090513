"""What operators see: figures, verdict, page and endpoint, and the snapshot."""

import gzip
import json
import re
from pathlib import Path
from typing import Any, cast, get_args

from prometheus_client import generate_latest
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

import govi_server
from govi_server.departures.board import Board, Trip
from govi_server.departures.breaker import CircuitBreaker
from govi_server.departures.cache import BoardCache
from govi_server.departures.source import SourceSilent, SourceUnreachable
from govi_server.departures.times import utc_timestamp
from govi_server.kv55.gateway import Gateway, GatewayEvent
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.subscriber import State
from govi_server.modules.kv55_gateway import Kv55Gateway
from govi_server.modules.ovapi import ovapi_modules
from govi_server.operations.admin import Admin
from govi_server.operations.components import KINDS, Components, GatewayComponents
from govi_server.operations.health import CALM, HealthMonitor, HealthStatus
from govi_server.operations.history import MINUTES, MOST_NAMES, OTHERS, RecentHistory
from govi_server.operations.metrics import FailingStops, Metrics
from govi_server.operations.readiness import Readiness
from govi_server.operations.status import OUTCOMES, Status
from govi_server.operations.status_page import page
from govi_server.runtime.services import Observers
from govi_server.settings import (
    AccessSettings,
    FeedLimitSettings,
    PasstimeSettings,
    PlanningSettings,
    SubscriberSettings,
)
from govi_server.statistics.batches import StatisticsBatcher
from govi_server.statistics.records import ConnectionStatistics, RequestStatistics
from tests import feed as kv
from tests.client import NOW, WireTestCase
from tests.doubles import FakePoster, FakeSource
from tests.statistics.test_html_report import luminance

CODE = "57330430"


class FakeSubscriber:
    """What the feed is asked about its connection."""

    def __init__(self) -> None:
        self.state: State = "UP"
        self.last: float | None = NOW
        self.address: str | None = "tcp://feed.example:7817"
        self.attempts = 1
        self.incidents = Gateway(FakePoster(), Clock(), "nobody").incidents


def contrast(one: float, other: float) -> float:
    """Tell how far two luminances are apart."""
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


class OperationsTestCase(WireTestCase):
    """Has the parts of a program with a gateway and a feed, and what watches them."""

    def setUp(self) -> None:
        super().setUp()
        self.parts = Components(self.server)
        self.source = FakeSource()
        gateway = Gateway(FakePoster(), self.clock, "the gateway")
        breaker = CircuitBreaker(self.source, self.clock)
        self.cache = BoardCache(breaker, self.clock)
        self.parts.gateways["kv55"] = GatewayComponents(gateway, breaker, self.cache)
        self.parts.feed = self.feed = self.make_feed()
        self.subscriber = FakeSubscriber()
        self.feed.subscriber = self.subscriber  # type: ignore[assignment]
        self.parts.modules = ("kv55", "tpc")
        modules = MultiService()
        for module in (Kv55Gateway("kv55", self.cache), *ovapi_modules(self.feed)):
            modules.addService(module)
        self.server.find_module = modules.getServiceNamed
        tally = StatisticsBatcher(self.server.name)
        self.hour = RecentHistory(self.clock, tally, self.parts.modules)
        self.judge = HealthMonitor(self.parts, self.hour, self.clock)
        self.metrics = Metrics(self.parts, self.judge, tally)
        self.metrics.registry.register(FailingStops(self.hour))
        self.status = Status(self.parts, self.hour, self.judge, self.clock, "1.2.3")
        observers = Observers((tally, self.hour, self.metrics))
        observers.startService()
        self.addCleanup(observers.stopService)

    def make_feed(self) -> Feed:
        limits = {
            "subscriber": SubscriberSettings(),
            "passtimes": PasstimeSettings(),
            "timetable": PlanningSettings(),
        }
        return Feed(self.clock, [], "", FeedLimitSettings(), cache_bytes=1 << 20, **cast(Any, limits))

    def happened(
        self, *requests: tuple[str, int | None, str], client: str = "192.0.2.0/24", wait: float = 0.0
    ) -> None:
        """Log a connection with requests: path, status, and what the cache had."""
        connection = ConnectionStatistics(self.server.name, client, self.clock.seconds())
        for path, status, cache in requests:
            request = RequestStatistics(self.clock.seconds(), "GET", path, status, 100, cast(Any, cache))
            request.wait, request.lookup = (wait, None) if wait else (None, 0.001)
            connection.requests.append(request)
        connection.ended, connection.end = self.clock.seconds(), "client"
        Logger().info(statistics=connection)

    def metric(self, line: str) -> str | None:
        """Give the value of a metric, by its name and labels."""
        lines = generate_latest(self.metrics.registry).decode().splitlines()
        return next((text.rpartition(" ")[2] for text in lines if text.rpartition(" ")[0] == line), None)


class HourTests(OperationsTestCase):
    """The last hour."""

    def test_counts(self) -> None:
        """Answers are counted by what came of them, and stops by how they fared."""
        self.happened((f"/kv55/{CODE}", 200, "hit"), ("/kv55/1", 504, "miss"), ("/kv55/2", 503, "miss"))
        self.happened(("/kv55/3", 404, "none"), (f"/tpc/{CODE}/departures", 200, "stale"), wait=2.5)
        (minute,) = self.hour.minutes()
        self.assertEqual(minute.outcomes, {"hit": 1, "timeout": 1, "failed": 1, "stale": 1})
        self.assertEqual(minute.stops, {CODE: 2, "1": 1, "2": 1, "3": 1})
        self.assertEqual((minute.unanswered, minute.unknown), ({"1": 1, "2": 1}, {"3": 1}))
        self.assertEqual(minute.slow, {"3": 2.5, CODE: 2.5})

    def test_other_server(self) -> None:
        """Callbacks are no questions."""
        Logger().info(statistics=ConnectionStatistics("kv55 callbacks", "local", NOW))
        self.assertEqual(list(self.hour.minutes()), [])

    def test_passes(self) -> None:
        """After an hour it is over, and what is kept is bounded."""
        for _ in range(2 * MINUTES):
            self.happened((f"/kv55/{CODE}", 200, "hit"))
            self.clock.advance(60)
        self.assertLessEqual(len(list(self.hour.minutes())), MINUTES)
        self.clock.advance(3700)
        self.assertEqual(list(self.hour.minutes()), [])

    def test_bounded(self) -> None:
        """However many stops and clients there are, a minute tells only so many apart."""
        for n in range(MOST_NAMES + 500):
            self.happened((f"/kv55/{n}", 404, "none"), client=f"client {n}")
        (minute,) = self.hour.minutes()
        self.assertEqual((len(minute.stops), minute.stops[OTHERS]), (MOST_NAMES + 1, 500))
        self.assertEqual(len(minute.clients), MOST_NAMES + 1)

    def test_feed_fails(self) -> None:
        """What the live feed has no board for failed, though it asked no cache; what nobody could answer did not."""
        self.happened(("/tpc/1", 503, "none"), ("/tpc/2", 404, "none"), ("/b", 503, "none"), ("/tpc/1", 501, "none"))
        (minute,) = self.hour.minutes()
        self.assertEqual(minute.outcomes, {"failed": 1})


class VerdictTests(OperationsTestCase):
    """The verdict."""

    def word(self) -> str:
        return self.judge.health().word

    def fail_gateway(self) -> None:
        for n in range(10):
            _, found = self.cache.board(str(n))
            cast("Deferred[object]", found).addErrback(lambda failure: failure.trap(SourceUnreachable))
            self.source.answers[-1].errback(SourceUnreachable("refused"))

    def test_up(self) -> None:
        """With nothing wrong it is UP, since the start."""
        self.assertEqual(self.word(), "UP")
        self.clock.advance(100)
        self.assertEqual(self.judge.health().since, NOW)

    def test_one_source(self) -> None:
        """One source of two that does not answer is DEGRADED, both are DOWN, and then it recovers."""
        self.subscriber.state = "DOWN"
        verdict = self.judge.health()
        self.assertEqual(verdict.word, "DEGRADED")
        self.assertRegex(
            verdict.why[0], r"^the live feed is DOWN, since ..:.. UTC, 0 min ago \(the last .* 0 s ago\): "
        )
        self.fail_gateway()
        self.clock.advance(5)
        verdict = self.judge.health()
        self.assertEqual((verdict.word, verdict.since), ("DOWN", NOW + 5))
        self.assertTrue(verdict.why[0].startswith("/kv55: the gateway does not take questions, since "), verdict.why)
        self.subscriber.state = "UP"
        self.assertEqual(self.word(), "DEGRADED")
        del self.parts.gateways["kv55"]
        self.assertEqual(self.word(), "RECOVERING")
        self.clock.advance(CALM + 1)
        self.assertEqual(self.word(), "UP")

    def test_answers(self) -> None:
        """Some questions that fail are nobody's business; many for several stops are, with what and how."""
        self.happened(*[(f"/kv55/{CODE}", 200, "hit")] * 10)
        self.happened(*((f"/kv55/{n}", 504, "miss") for n in range(4)))
        self.assertEqual(self.word(), "UP")
        self.happened(("/kv55/1", 406, "miss"))
        self.assertEqual(self.word(), "DEGRADED")
        self.clock.advance(120)
        (why,) = self.judge.health().why
        since = utc_timestamp(NOW)[11:16]
        details = "5 of 15 in 5 minutes, stops: 4; 504: 4, 406: 1"
        self.assertTrue(why.startswith(f"/kv55: questions fail, since {since} UTC, 2 min ago ({details}): "), why)
        self.happened(*[(f"/kv55/{CODE}", 200, "hit")] * 500)
        self.assertEqual(self.word(), "RECOVERING")

    def test_made_up(self) -> None:
        """One stop that is never answered wakes nobody, but is told."""
        self.happened(*[(f"/kv55/{CODE}", 200, "hit")] * 100, *[("/kv55/99999999", 504, "miss")] * 55)
        verdict = self.judge.health()
        self.assertEqual(verdict.word, "UP")
        self.assertEqual(
            verdict.why, ("/kv55: 55 of 155 in 5 minutes failed, all for 99999999, which may not exist",)
        )
        stops = self.status.json()["stops"]
        self.assertEqual((stops["never_answered"], stops["most_failed"]), ({"99999999": 55}, {}))

    def test_one_stop(self) -> None:
        """One stop that fails is told when it had answers before: it exists."""
        self.happened((f"/kv55/{CODE}", 200, "miss"), *[(f"/kv55/{CODE}", 502, "miss")] * 5)
        self.assertEqual(self.word(), "DEGRADED")

    def test_all_fail(self) -> None:
        """A gateway that takes questions and answers none is DOWN when it is the only source."""
        self.parts.feed = None
        self.happened(*((f"/kv55/{n}", 200, "miss") for n in range(5)))
        self.assertEqual(self.word(), "UP")
        self.clock.advance(180)
        self.happened(*((f"/kv55/{n}", 504, "miss") for n in range(5)))
        verdict = self.judge.health()
        self.assertEqual(verdict.word, "DOWN")
        self.assertIn("/kv55 takes questions, but gets no answers", verdict.why[0])
        self.assertIn("none of 5 was answered in 3 minutes; 504: 5", verdict.why[0])
        self.happened(*[("/kv55/1", 200, "hit")] * 5)
        self.assertEqual(self.word(), "DEGRADED")

    def test_nobody_waits(self) -> None:
        """Clients that give up before the deadline are without an answer as well."""
        self.parts.feed = None
        self.happened(*((f"/kv55/{n}", None, "miss") for n in range(5)))
        self.assertEqual(self.word(), "DOWN")
        self.assertIn("left by the client: 5", self.judge.health().why[0])

    def test_scanner(self) -> None:
        """Stops that were never answered are no proof against a source that answers others."""
        self.parts.feed = None
        self.happened((f"/kv55/{CODE}", 200, "miss"))
        self.clock.advance(300)
        self.happened(*((f"/kv55/{n}", 504, "miss") for n in range(5)))
        self.assertEqual(self.word(), "DEGRADED")
        self.happened(*[(f"/kv55/{CODE}", 504, "miss")])
        self.assertEqual(self.word(), "DOWN")

    def test_feed_without_boards(self) -> None:
        """A feed that is UP and has no boards for anybody is told as a source that fails."""
        del self.parts.gateways["kv55"]
        self.happened(*((f"/{module}/{n}", 503, "none") for n in range(3) for module in ("kv55", "tpc")))
        verdict = self.judge.health()
        self.assertEqual(verdict.word, "DOWN")
        self.assertIn("none of 6 was answered in 3 minutes; 503: 6", verdict.why[0])

    def test_house(self) -> None:
        """Connections that run out, files that do, and what cannot be written are told."""
        self.server.access.limits = AccessSettings(connections=1, unlimited=())
        self.client()
        self.server.accepting.paused = True
        self.parts.statistics = cast(Any, type("Log", (), {"writable": False, "incidents": self.feed.incidents})())
        self.parts.snapshots = cast(
            Any, type("Snapshots", (), {"writable": False, "incidents": self.feed.incidents})()
        )
        why = self.judge.health().why
        self.assertEqual(len(why), 4)
        self.assertIn("(1 of 1 are in use)", why[0])

    def test_recovering_feed(self) -> None:
        """A feed that has not told everything yet is RECOVERING."""
        self.subscriber.state = "UNKNOWN"
        self.assertEqual(self.judge.health().why, ("the live feed is UNKNOWN: the last data came 0 s ago",))


class StatusTests(OperationsTestCase):
    """The status, as JSON and as a page."""

    def test_json(self) -> None:
        """It can be read by machines, and has the last hour by minute."""
        self.happened((f"/kv55/{CODE}", 200, "hit"), ("/kv55/1", 504, "miss"))
        Logger().info(flight=GatewayEvent("kv55", "taken", 0.05))
        Logger().warn("<b>something</b>")
        status = json.loads(json.dumps(self.status.json()))
        self.assertEqual(status["verdict"], "UP")
        self.assertEqual(status["hour"]["outcomes"]["hit"], [0] * 59 + [1])
        self.assertEqual(status["stops"]["never_answered"], {"1": 1})
        self.assertEqual(status["events"][0]["text"], "<b>something</b>")
        self.assertEqual(status["feed"]["state"], "UP")

    def test_latencies(self) -> None:
        """Latencies are told by module, and those of the last minutes beside the hour's, however many there are."""
        self.parts.gateways["other"] = self.parts.gateways["kv55"]
        for _ in range(1000):
            Logger().info(flight=GatewayEvent("kv55", "answered", 0.1))
        self.clock.advance(600)
        for _ in range(2000):
            Logger().info(flight=GatewayEvent("kv55", "answered", 8))
        Logger().info(flight=GatewayEvent("other", "taken", 0.05))
        gateways = self.status.json()["gateways"]
        answers = {name: gateways["kv55"][name]["answer_ms"] for name in ("hour", "lately")}
        self.assertApproximates(answers["hour"]["p50"], 8000, 80)
        self.assertEqual(answers["hour"]["p50"], answers["lately"]["p99"])
        self.assertEqual(gateways["other"]["lately"]["answer_ms"]["p50"], None)
        self.assertApproximates(gateways["other"]["hour"]["acknowledgement_ms"]["p50"], 50, 0.5)

    def test_colours(self) -> None:
        """The bars are told from the ground and from each other by lightness alone, in light and in dark."""
        themes = re.findall(r"--panel: (#\w+);(.*?)}", page(self.status.json()).decode(), re.DOTALL)
        self.assertEqual(len(themes), 2)
        for panel, rules in themes:
            colours = dict(re.findall(r"--(\w+): #(\w{6})", rules))
            bars = {name: luminance(colours[name]) for name in OUTCOMES}
            for one, light in bars.items():
                self.assertGreaterEqual(contrast(light, luminance(panel[1:])), 3, one)
                for other in bars.keys() - {one}:
                    self.assertGreaterEqual(contrast(light, bars[other]), 1.35, (one, other))

    def test_words(self) -> None:
        """A little is not nothing; who is not connected tries; what happened today has but its time."""
        self.happened(("/kv55/1", 200, "joined"), *[("/kv55/1", 200, "hit")] * 999)
        self.subscriber.state = "DOWN"
        self.subscriber.attempts = 2
        Logger().warn("something")
        text = page(self.status.json()).decode()
        self.assertIn("joined 1 (&lt;1%)", text)
        self.assertIn("trying<td>tcp://feed.example:7817", text)
        self.assertIn("connected anew<td>once", text)
        self.assertIn(f">{utc_timestamp(NOW)[11:]}</time> <b class=middle>warn</b> something", text)

    def test_page(self) -> None:
        """The page begins with the verdict, loads itself again, needs nothing else, and escapes what others wrote."""
        Logger().warn("<script>alert(1)</script>")
        self.happened((f"/kv55/{CODE}", 200, "hit"), client="<i>")
        text = page(self.status.json()).decode()
        self.assertIn("<h1>UP</h1>", text)
        self.assertIn('http-equiv="refresh" content="10"', text)
        self.assertNotIn("<script", text)
        self.assertNotIn("<i>", text.replace("<i style", ""))
        for foreign in ("http://", "https://", "src=", "@import", "url("):
            self.assertNotIn(foreign, text)

    def test_page_of_nothing(self) -> None:
        """With no gateway, no feed and no hour there is a page all the same."""
        self.parts.gateways.clear()
        self.parts.feed = None
        self.assertIn(b"none in the last hour", page(self.status.json()))


class MetricsTests(OperationsTestCase):
    """Figures for Prometheus."""

    def test_requests(self) -> None:
        """Requests are counted by module, status and cache result; made-up paths are one module."""
        self.happened(
            (f"/kv55/{CODE}", 200, "hit"), ("/a", 404, "none"), ("/b", 404, "none"), ("/tpc/1", None, "none")
        )
        for labels, value in {
            'cache="hit",module="kv55",status="200"': "1.0",
            'cache="none",module="other",status="404"': "2.0",
            'cache="none",module="tpc",status="none"': "1.0",
        }.items():
            self.assertEqual(self.metric(f"govi_requests_total{{{labels}}}"), value)
        self.assertEqual(self.metric('govi_request_phase_seconds_count{phase="lookup"}'), "4.0")
        self.assertEqual(self.metric('govi_connections_ended_total{end="client"}'), "1.0")

    def test_streams(self) -> None:
        """Connections that listen for events are counted apart, in figures, in the status and on its page."""
        for stream in (True, True, False):
            connection = self.client().handler.connection
            if stream:
                self.server.streaming(connection)
        self.assertEqual((self.metric("govi_connections"), self.metric("govi_streams")), ("3.0", "2.0"))
        status = self.status.json()
        self.assertEqual((status["connections"]["open"], status["connections"]["streams"]), (3, 2))
        self.assertIn(b"listening for events<td>2", page(status))

    def test_gateway(self) -> None:
        """Acknowledgements and answers are told apart."""
        Logger().info(flight=GatewayEvent("kv55", "taken", 0.05))
        Logger().info(flight=GatewayEvent("kv55", "answered", 1.5))
        Logger().info(flight=GatewayEvent("kv55", "late", 12))
        self.assertEqual(self.metric('govi_gateway_acknowledgement_seconds_count{module="kv55"}'), "1.0")
        self.assertEqual(self.metric('govi_gateway_callback_seconds_sum{module="kv55"}'), "13.5")
        self.assertEqual(self.metric('govi_breaker_state{module="kv55",state="closed"}'), "1.0")

    def test_failing_stops(self) -> None:
        """Stops whose questions fail are counted once each, for some minutes."""
        self.happened(("/kv55/1", 504, "miss"), ("/kv55/1", 504, "miss"), ("/kv55/2", 502, "miss"))
        self.happened(("/kv55/3", None, "miss"), ("/kv55/4", 200, "miss"))
        self.assertEqual(self.metric('govi_failing_stops{module="kv55"}'), "2.0")
        self.assertEqual(self.metric('govi_failing_stops{module="tpc"}'), "0.0")
        self.clock.advance(300)
        self.assertEqual(self.metric('govi_failing_stops{module="kv55"}'), "0.0")

    def test_kinds(self) -> None:
        """Whatever may go wrong is there from the start, at 0; and the table of it has what the program says."""
        for where, kinds in KINDS.items():
            if where in ("statistics", "snapshot"):
                continue  # these parts have neither
            for kind in kinds:
                name = "kv55" if where == "gateway" else where
                self.assertEqual(self.metric(f'govi_incidents_total{{kind="{kind}",where="{name}"}}'), "0.0")
        said = set()
        for path in Path(govi_server.__file__).parent.rglob("*.py"):
            if path.parent.name == "simulator":
                continue  # has no figures
            calls = r'(?:incidents\.add|\b_?reject|self\._drop)\(\s*"([^"]+)"'
            said |= set(re.findall(calls, path.read_text("utf-8")))
        self.assertEqual(said, {kind for kinds in KINDS.values() for kind in kinds})
        self.assertIn("too many names", said)

    def test_renderings(self) -> None:
        """What the feed's modules keep of what they made is told as the caches of others are."""
        self.feed.received("/GOVI/KV8passtimes/LIN", gzip.compress(kv.passtimes({})))
        (code,) = self.feed.passtimes.stops
        for form in "abc":
            self.feed.boards.rendered(code, 7200, form, lambda board: b"x" * (1 << 19))
        self.assertEqual(self.metric('govi_cache_entries{module="feed"}'), "2.0")
        self.assertEqual(self.metric('govi_cache_bytes{module="feed"}'), "1.048576e+06")
        self.assertEqual(self.metric('govi_cache_evictions_total{module="feed"}'), "1.0")

    def test_feed(self) -> None:
        """The feed's state, records and owners, and what it could not read."""
        self.feed.received("/GOVI/KV8passtimes/OWN", gzip.compress(kv.passtimes({})))
        self.feed.received("/GOVI/KV8passtimes/OWN", b"no gzip")
        self.clock.advance(7)
        self.assertEqual(self.metric("govi_feed_records_total"), "1.0")
        (owner,) = self.feed.passtimes.last_heard
        self.assertEqual(self.metric(f'govi_feed_age_seconds{{owner="{owner}"}}'), "7.0")
        self.assertEqual(self.metric('govi_incidents_total{kind="broken message",where="feed"}'), "1.0")
        self.assertEqual(self.metric('govi_feed_state{state="UP"}'), "1.0")

    def test_verdict(self) -> None:
        """The verdict is 1, and every other one that there is 0."""
        self.subscriber.state = "DOWN"
        words = {word: self.metric(f'govi_verdict{{verdict="{word}"}}') for word in get_args(HealthStatus)}
        self.assertEqual(words, {"UP": "0.0", "RECOVERING": "0.0", "DEGRADED": "1.0", "DOWN": "0.0"})


class AdminTests(OperationsTestCase):
    """The operators' endpoint."""

    def get(self, path: str) -> StringTransport:
        admin = Admin(self.clock, self.metrics, self.status, Readiness(self.parts, "", self.clock))
        protocol = admin.buildProtocol(cast(IAddress, None))
        transport = StringTransport()
        assert protocol is not None
        protocol.makeConnection(transport)
        protocol.dataReceived(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        return transport

    def test_paths(self) -> None:
        """Each path has its kind of answer; anything else is a 404."""
        self.feed.received("/GOVI/KV7planning", gzip.compress(kv.planning({})))
        for path, kind in {
            "/health": b"text/plain", "/status": b"text/html", "/": b"text/html", "/status.json": b"application/json",
            "/metrics": b"text/plain", "/ready": b"text/plain",
        }.items():  # fmt: skip
            self.assertRegex(self.get(path).value(), b"(?s)^HTTP/1.[01] 200 .*Content-Type: " + kind)
        self.assertRegex(self.get("/passwd").value(), b"^HTTP/1.[01] 404 ")

    def test_not_ready(self) -> None:
        """Not ready is a 503 that says why: the board that was asked for last would not be told now."""
        _, found = self.cache.board(CODE)
        self.source.answers[-1].callback(Board(CODE, (Trip(),), NOW))
        self.successResultOf(cast("Deferred[object]", found))
        self.clock.advance(301)
        self.subscriber.state = "DOWN"
        transport = self.get("/ready")
        self.assertEqual(transport.value(), b"")
        self.source.answers[-1].errback(SourceSilent("no answer within 10 s"))
        self.assertRegex(transport.value(), b"^HTTP/1.[01] 503 ")
        self.assertIn(
            f"/kv55: stop {CODE}: 504 Gateway Timeout, Timeout\nthe live feed is DOWN: the last".encode(),
            transport.value(),
        )

    def why_not(self) -> str:
        answer: bytes = self.get("/ready").value()
        return answer.partition(b"\r\n\r\n")[2].decode()

    def test_not_ready_at_all(self) -> None:
        """Not ready is who lets nobody in, and whose gateway takes no questions, whatever is in memory."""
        self.feed.received("/GOVI/KV7planning", gzip.compress(kv.planning({})))
        self.cache.put(Board(CODE, (Trip(),), NOW))
        self.cache.last_asked = CODE
        self.assertEqual(self.why_not(), "ready\n")
        self.server.accepting.paused = True
        self.parts.gateways["kv55"].breaker.state = "open"
        self.assertEqual(
            self.why_not(),
            "too many open files: no connections are accepted\n/kv55: the gateway does not take questions\n",
        )
        self.server.draining = True
        self.assertIn("the server stops\n", self.why_not())

    def test_not_ready_broken(self) -> None:
        """A module that fails is found out, for it is asked as clients ask it; and no statistics tell of that."""
        self.feed.received("/GOVI/KV7planning", gzip.compress(kv.planning({})))
        self.feed.boards.rendered = None  # type: ignore[method-assign,assignment]
        self.assertRegex(self.why_not(), "^/tpc: stop [0-9]+: 500 Internal Server Error\n$")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(list(self.hour.minutes()), [])

    def test_nobody_waits(self) -> None:
        """A check whose asker has left leaves nothing behind."""
        self.feed.received("/GOVI/KV7planning", gzip.compress(kv.planning({})))
        self.cache.last_asked = CODE
        admin = Admin(self.clock, self.metrics, self.status, Readiness(self.parts, "", self.clock))
        protocol = admin.buildProtocol(cast(IAddress, None))
        assert protocol is not None
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(b"GET /ready HTTP/1.0\r\nHost: x\r\n\r\n")
        self.assertEqual(self.cache.flights, {CODE: 1})
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.cache.flights, {CODE: 0})
