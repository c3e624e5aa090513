"""Tests of sharing.source, sharing.boards and sharing.peers: several nodes with one engine in memory."""

from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from govi_server.departures.board import Board, Trip
from govi_server.departures.source import IDepartureSource, NoBoard, SourceBroken, SourceSilent, SourceUnreachable
from govi_server.kv55.gateway import IPeers
from govi_server.kv55.messages import write_dris_55
from govi_server.kv55.post_connection import PostError
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.sharing.boards import FORM, LEASE_SECONDS, NODE_SECONDS, RENEW_SECONDS, SharedBoards
from govi_server.sharing.engine import RETRY_SECONDS
from govi_server.sharing.peers import MAX_OFFERS, OFFER_SECONDS, REGISTER_SECONDS, Peers
from govi_server.sharing.source import SharedSource
from tests.doubles import FakePoster, FakeSource
from tests.sharing.fake_engine import LATENCY, FakeEngine

CODE = "57330430"
NOW = 1_327_272_349.0
DEADLINE = 12.5
KEY = b"govi-cache:kv55:b:57330430"
REQUEST = b"govi-cache:kv55:f:57330430"
NODES = b"govi-cache:kv55:nodes"


class Node:
    """A node with a source that the test controls."""

    def __init__(self, engine: FakeEngine, name: str, prefix: str = "govi-cache", known: Sequence[str] = ()) -> None:
        clock = engine.clock
        self.engine = engine.node()
        self.boards = SharedBoards(self.engine, "kv55", prefix, clock, name)
        self.source = FakeSource()
        runner = CooperativeRunner(clock)
        self.shared = SharedSource(self.source, self.boards, clock, runner, 60.0, DEADLINE)
        self.posters: dict[str, FakePoster] = {}
        self.address: tuple[str, int] | None = ("0.0.0.0", 8000 + int(name))
        self.peers = Peers(self.boards, clock, lambda: self.address, ["127.0.0.0/8"], self._make_poster, known)
        self.late: list[Board] = []
        self.shared.listen(self.late.append)
        for service in (self.engine, self.peers, self.shared):
            service.startService()

    def _make_poster(self, url: str) -> FakePoster:
        self.posters[url] = poster = FakePoster()
        poster.immediate = PostError("responded 403")
        return poster

    @property
    def results(self) -> dict[str, int]:
        return {result: n for (_, result), n in self.engine.status.results.items()}


class SharingTestCase(SynchronousTestCase):
    """Three nodes that are connected to an engine."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.engine = FakeEngine(self.clock)
        self.nodes = [Node(self.engine, str(i)) for i in range(3)]
        self.pass_time(0.1)
        self.assertTrue(all(node.engine.status.is_sharing for node in self.nodes))

    def tearDown(self) -> None:
        for node in self.nodes:
            node.shared.stopService()
            node.peers.stopService()
            stopped = Deferred.fromCoroutine(node.engine.stopService())
            self.pass_time(0.1)
            self.successResultOf(stopped)
        self.pass_time(OFFER_SECONDS + 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def pass_time(self, seconds: float) -> None:
        """Advance the clock in steps of the engine's latency, at most 50 ms."""
        step = min(0.05, max(seconds / 10, LATENCY))
        self.clock.pump([step] * round(seconds / step))

    def board(self, code: str = CODE, journey: str = "1", age: float = 0.0) -> Board:
        return Board(code, (Trip(journey_number=journey),), self.clock.seconds() - age)

    def request(self, *nodes: int) -> list[Deferred[Board]]:
        """Request the board on nodes, one after another."""
        results = []
        for node in nodes:
            results.append(self.nodes[node].shared.board(CODE))
            self.pass_time(0.01)
        return results

    def n_requests(self) -> list[int]:
        """Return the number of gateway requests of each node."""
        return [len(node.source.requested) for node in self.nodes]


class SharedSourceTests(SharingTestCase):
    """Requests on several nodes."""

    def test_provides(self) -> None:
        """The classes provide the interfaces of their callers."""
        verifyObject(IDepartureSource, self.nodes[0].shared)
        verifyObject(IPeers, self.nodes[0].peers)

    def test_one_request_for_all_nodes(self) -> None:
        """One node sends a request; its board is that of all, and of later requests for a minute, with its age."""
        results = self.request(0, 1, 2)
        self.assertEqual(self.n_requests(), [1, 0, 0])
        self.nodes[0].source.results[0].callback(self.board())
        self.pass_time(0.01)
        for result in results:
            self.assertEqual(self.successResultOf(result).trips, self.board().trips)
        self.pass_time(30)
        (later,) = self.request(2)
        self.assertApproximates(self.clock.seconds() - self.successResultOf(later).received_at, 30, 0.1)
        self.pass_time(31)
        self.request(1)
        self.assertEqual(self.n_requests(), [1, 1, 0])
        self.assertEqual(self.nodes[2].results, {"waited": 1, "shared": 1})

    def test_older_board_does_not_end_a_request(self) -> None:
        """When the engine is back, its board is served, but the request goes on whose response will be newer."""
        self.nodes[1].boards.store(self.board(journey="1", age=55))
        self.pass_time(0.1)
        self.engine.model.error = "ERR"
        (own,) = self.request(0)
        self.assertEqual(self.n_requests(), [1, 0, 0])
        self.engine.model.error = ""
        self.pass_time(RENEW_SECONDS + 0.1)
        self.assertEqual(self.successResultOf(own).trips[0].journey_number, "1")
        self.pass_time(10)  # the board is stale, and the gateway slow
        (later,) = self.request(0)
        self.assertEqual(self.n_requests(), [1, 0, 0])
        self.nodes[0].source.results[0].callback(self.board(journey="2"))
        self.pass_time(0.1)
        self.assertEqual(self.successResultOf(later).trips[0].journey_number, "2")

    def test_lost_message_costs_half_a_second(self) -> None:
        """A node that is not told of the board finds it within RENEW_SECONDS."""
        self.engine.loses_messages = True
        _, waiting = self.request(0, 1)
        self.nodes[0].source.results[0].callback(self.board())
        self.pass_time(RENEW_SECONDS + 0.1)
        self.successResultOf(waiting)

    def test_silent_gateway_is_not_asked_again_for_those_who_wait(self) -> None:
        """If the gateway does not respond, or wrongly, all nodes fail; the next request is sent again."""
        for error in (SourceSilent, SourceBroken):
            own, waiting = self.request(0, 1)
            self.nodes[0].source.results[-1].errback(error("reason"))
            self.pass_time(0.1)
            self.failureResultOf(own, error)
            self.failureResultOf(waiting, error)
        self.assertEqual(self.n_requests(), [2, 0, 0])

    def test_unreachable_gateway_is_tried_by_other_nodes(self) -> None:
        """If a node cannot reach the gateway, another one sends the request for its own clients."""
        own, waiting = self.request(0, 1)
        self.nodes[0].source.results[0].errback(SourceUnreachable("reason"))
        self.pass_time(0.01)
        self.failureResultOf(own, SourceUnreachable)
        self.nodes[1].source.results[0].callback(self.board())
        self.successResultOf(waiting)

    def test_dead_node_is_taken_over(self) -> None:
        """One of the nodes that wait for a dead one sends the request again when the claim has expired."""
        _, *waiting = self.request(0, 1, 2)
        renewal, self.nodes[0].shared._renewal = self.nodes[0].shared._renewal, None
        assert renewal is not None
        renewal.cancel()  # the node is dead
        self.pass_time(1.4)
        self.assertEqual(self.n_requests(), [1, 0, 0])
        self.pass_time(LEASE_SECONDS + RENEW_SECONDS)
        self.assertEqual(sum(self.n_requests()), 2)
        (second,) = (node.source.results[0] for node in self.nodes[1:] if node.source.results)
        second.callback(self.board())
        self.pass_time(0.1)
        for result in waiting:
            self.successResultOf(result)

    def test_claim_is_renewed(self) -> None:
        """While a node waits for the gateway, no other one sends the request."""
        own, *waiting = self.request(0, 1, 2)
        self.pass_time(9.5)
        self.assertEqual(self.n_requests(), [1, 0, 0])
        self.nodes[0].source.results[0].callback(self.board())
        self.pass_time(0.01)
        for result in (own, *waiting):
            self.successResultOf(result)

    def test_board_that_arrives_elsewhere_ends_the_request(self) -> None:
        """A board that is offered by another node resolves the request, and cancels that of the source."""
        (own,) = self.request(0)
        self.assertEqual(self.successResultOf(self.offer(1)), "stored")
        self.successResultOf(own)
        self.assertTrue(self.nodes[0].source.results[0].called)
        self.assertEqual(self.nodes[0].results, {"asked": 1})  # so that these add up to the gateway requests
        self.assertEqual(self.successResultOf(self.offer(1)), "repeated")

    def offer(self, node: int) -> Deferred[str]:
        result: Deferred[str] = Deferred()
        self.nodes[node].peers.offer(self.board()).addCallback(result.callback)
        self.pass_time(0.01)
        return result

    def test_engine_loses_its_data_during_a_request(self) -> None:
        """A flushed engine has the claims again soon; a board that arrives meanwhile is offered again."""
        own, waiting = self.request(0, 1)
        self.engine.model.clear()
        offered = self.offer(2)
        self.assertNoResult(offered)
        self.pass_time(1.5)
        self.assertEqual(self.successResultOf(offered), "stored")
        self.successResultOf(own)
        self.successResultOf(waiting)
        self.assertEqual(sum(self.n_requests()), 1)

    def test_engine_that_hangs(self) -> None:
        """A miss waits for at most half a second; later ones, and those without an engine, do not wait."""
        self.engine.is_silent = True
        self.request(0)
        self.assertEqual(self.n_requests(), [0, 0, 0])
        self.pass_time(0.8)  # a closed connection is reported in a later step
        self.assertEqual(self.n_requests(), [1, 0, 0])
        self.nodes[0].shared.board("1")
        self.assertEqual(self.nodes[0].source.requested, [CODE, "1"])
        self.nodes[0].source.results[0].callback(self.board())
        self.assertEqual(self.nodes[0].results, {"alone": 1})

    def test_engine_is_lost_while_a_node_waits(self) -> None:
        """A node that waits for another one when the engine is lost sends a request within half a second."""
        self.request(0, 1)
        self.engine.refuses = True
        for transport in list(self.engine.connections):
            transport.end()
        self.pass_time(RENEW_SECONDS + 0.1)
        self.assertEqual(self.n_requests(), [1, 1, 0])
        self.engine.refuses = False
        self.pass_time(RETRY_SECONDS + 0.1)
        self.assertTrue(self.nodes[0].engine.status.is_sharing)

    def test_engine_with_errors(self) -> None:
        """An engine that is full or has another fault is not waited for."""
        self.engine.model.error = "OOM command not allowed when used memory > 'maxmemory'."
        self.request(0, 1)
        self.assertEqual(self.n_requests(), [1, 1, 0])
        self.assertFalse(self.nodes[0].engine.status.is_sharing)
        self.engine.model.error = ""
        self.request(2)
        self.assertTrue(self.nodes[2].engine.status.is_sharing)
        self.assertFalse(self.nodes[0].engine.status.is_sharing)
        self.pass_time(REGISTER_SECONDS)  # a command without requests
        self.assertTrue(self.nodes[0].engine.status.is_sharing)

    def test_probe_requests_a_new_board(self) -> None:
        """A probe is sent to the source, whatever the engine has, and accepts a response that arrives elsewhere."""
        self.engine.model.put(KEY, FORM + write_dris_55([self.board()], None), 299_000)
        self.request(0)
        probe = self.nodes[0].shared.new_board(CODE)
        self.pass_time(0.01)
        self.assertEqual(self.n_requests(), [1, 0, 0])
        self.assertEqual(self.successResultOf(self.offer(1)), "stored")
        self.successResultOf(probe)

    def test_late_board_is_shared(self) -> None:
        """A board that arrives after the deadline of its request is for all nodes."""
        self.nodes[0].source.publish(self.board())
        self.pass_time(0.01)
        self.assertEqual(len(self.nodes[0].late), 1)
        self.successResultOf(self.request(1)[0])
        self.assertEqual(self.n_requests(), [0, 0, 0])

    def test_older_board_does_not_replace_a_newer_one(self) -> None:
        """The engine keeps the newest board."""
        self.nodes[0].boards.store(self.board(journey="2"))
        self.nodes[1].boards.store(self.board(journey="1", age=30))
        self.pass_time(0.01)
        self.assertEqual(self.successResultOf(self.request(2)[0]).trips[0].journey_number, "2")

    def test_deadline(self) -> None:
        """A caller fails at its deadline, also if a takeover has made the request longer than one of the source."""
        own, waiting = self.request(0, 1)
        self.pass_time(9)
        self.nodes[0].source.results[0].errback(SourceUnreachable("reason"))
        self.failureResultOf(own, SourceUnreachable)
        self.pass_time(DEADLINE - 9 - RENEW_SECONDS - 0.1)
        self.assertNoResult(waiting)
        self.pass_time(RENEW_SECONDS)
        self.failureResultOf(waiting, SourceSilent)
        self.pass_time(3)
        later = self.request(1, 2)
        self.assertEqual(self.n_requests(), [1, 1, 0])
        self.nodes[1].source.results[0].callback(self.board())
        self.pass_time(0.01)
        for result in later:
            self.successResultOf(result)

    def test_reply_to_the_claim_of_an_ended_request(self) -> None:
        """A claim that is confirmed after its request has ended remains if the next request has made it as well."""
        for _ in range(2):  # first, the engine has to learn the scripts
            (own,) = self.request(0)
            self.pass_time(RENEW_SECONDS - 0.011)
            self.clock.advance(0.0015)  # the claim is being renewed
            self.nodes[0].source.results[-1].errback(SourceSilent("reason"))
            self.failureResultOf(own, SourceSilent)
        _, waiting = self.request(0, 1)
        self.assertEqual(self.n_requests(), [3, 0, 0])
        self.nodes[1].shared.stopService()
        self.failureResultOf(waiting, SourceSilent)

    def test_board_after_the_deadline(self) -> None:
        """A board that the source, or the engine, has after the deadline of the callers is late."""
        for use in ("source", "engine"):
            (own,) = self.request(0)
            self.pass_time(DEADLINE + RENEW_SECONDS)
            self.failureResultOf(own, SourceSilent)
            if use == "source":
                self.nodes[0].source.results[0].callback(self.board())
            else:
                self.nodes[1].boards.store(self.board())
            self.pass_time(0.01)
            self.assertEqual(len(self.nodes[0].late), 1 if use == "source" else 2)
            self.pass_time(61)

    def test_deadline_without_the_source(self) -> None:
        """A node that only waits for another one ends its request at the deadline."""
        for result in self.request(0, 1):
            result.addErrback(lambda failure: failure.trap(SourceSilent))
        self.pass_time(DEADLINE + RENEW_SECONDS)
        self.assertEqual((len(self.nodes[0].shared._requests), len(self.nodes[1].shared._requests)), (1, 0))

    def test_clock_that_is_set_back(self) -> None:
        """If the clock is set back, the requests continue, and are renewed."""
        own, waiting = self.request(0, 1)
        self.clock.rightNow -= 3600
        for call in self.clock.getDelayedCalls():
            call.reset(0.01)  # as ClockWatch does
        self.pass_time(1)
        self.assertNoResult(own)
        self.nodes[0].source.results[0].callback(self.board())
        self.pass_time(0.6)
        self.successResultOf(own)
        self.successResultOf(waiting)

    def test_many_requests_are_renewed_by_one_timer(self) -> None:
        """Requests that begin while claims are renewed do not start a second renewal."""
        shared, renewals = self.nodes[0].shared, []

        async def run(steps: Iterator[None]) -> None:
            renewals.append(self.clock.seconds())
            await deferLater(self.clock, 0.2)
            for _ in steps:
                pass

        shared._runner.run = run  # type: ignore[method-assign,assignment]
        for i in range(40):
            shared.board(str(i))
            self.pass_time(0.1)
        self.assertIn(len(renewals), range(5, 9))

    def test_node_that_stops_leaves_its_requests_to_others(self) -> None:
        """When a node stops, those that wait for it send the request at once, whatever its source returns."""
        own, _ = self.request(0, 1)
        self.nodes[0].shared.stopService()
        self.nodes[0].source.results[0].errback(SourceSilent("the server is stopping"))
        self.failureResultOf(own, SourceSilent)
        self.pass_time(0.01)
        self.assertEqual(self.n_requests(), [1, 1, 0])

    def test_node_that_stops_while_it_waits_for_another(self) -> None:
        """When a node stops, its requests that wait for other nodes, or for the engine, fail."""
        own, waiting = self.request(0, 1)
        claiming = self.nodes[1].shared.board("57330431")
        self.nodes[1].shared.stopService()
        self.failureResultOf(waiting, SourceSilent)
        self.failureResultOf(claiming, SourceSilent)
        self.failureResultOf(self.nodes[1].shared.board("57330432"), SourceSilent)
        self.pass_time(0.01)
        self.assertEqual(self.n_requests(), [1, 0, 0])
        self.assertNoResult(own)
        claim = self.engine.model.find(b"govi-cache:kv55:f:57330431")
        assert claim is not None
        self.assertEqual(claim.value, b"-unreachable")

    def test_unexpected_failure_of_the_source(self) -> None:
        """An exception of the source fails the request, and leaves it to the other nodes."""
        own, _ = self.request(0, 1)
        self.nodes[0].source.results[0].errback(ZeroDivisionError())
        self.failureResultOf(own, ZeroDivisionError)
        self.pass_time(0.01)
        self.assertEqual(self.n_requests(), [1, 1, 0])

    def test_immediate_result_of_the_source(self) -> None:
        """A source may succeed or fail at once."""
        for immediate in (SourceUnreachable("open"), self.board()):
            self.nodes[0].source.immediate = immediate
            (result,) = self.request(0)
            if isinstance(immediate, NoBoard):
                self.failureResultOf(result, NoBoard)
            else:
                self.successResultOf(result)


class SharedBoardsTests(SharingTestCase):
    """Values of the engine."""

    @given(value=st.binary() | st.binary().map(FORM.__add__), left=st.integers())
    def test_any_value(self, value: bytes, left: int) -> None:
        """No value raises an exception; what is not a board is unreadable."""
        claim = self.nodes[0].boards._claimed([b"board", value, left], CODE)
        self.assertEqual(claim.state, "unreadable")

    def test_any_reply(self) -> None:
        """A reply that no script returns is unreadable, and the request is sent."""
        for reply in (None, 1, [], [b"claimed", 1], [b"board"], [b"board", 1, 1], {b"a": 1}, b"claimed"):
            self.assertEqual(self.nodes[0].boards._claimed(reply, CODE).state, "unreadable")

    def test_message_about_no_stop_is_ignored(self) -> None:
        """Messages that are not a TimingPointCode are ignored."""
        (own,) = self.request(0)
        for message in (b"", b"x" * 1000, b"\xff", b"1" * 11):
            self.engine.publish(b"govi-cache:0:kv55", message)
        self.pass_time(0.01)
        self.assertNoResult(own)


class PeersTests(SharingTestCase):
    """Callbacks that are passed on from node to node."""

    def setUp(self) -> None:
        super().setUp()
        self.urls = [f"http://127.0.0.1:{8000 + i}/govi-cache-peer" for i in range(3)]

    def test_nodes_know_each_other(self) -> None:
        """Each node knows the addresses of the others soon after their start."""
        for i, node in enumerate(self.nodes):
            self.assertEqual(node.peers.urls, self.urls[:i] + self.urls[i + 1 :])

    def test_only_allowed_addresses(self) -> None:
        """Addresses outside of the networks that may send callbacks, and texts that are none, are ignored."""
        for address in (
            b"192.0.2.1:80", b"localhost:80", b"127.0.0.1", b"127.0.0.1:0", b"a@127.0.0.1:80", b"\xff:1",
            b"127.0.0.1:9000/x",
        ):  # fmt: skip
            self.engine.model.call(b"ZADD", NODES, b"%d" % self.clock.seconds(), address)
        self.pass_time(10)
        self.assertEqual(self.nodes[0].peers.urls, self.urls[1:])
        self.nodes[0].peers.set_allow(["192.0.2.0/24"])
        self.pass_time(10)
        self.assertEqual(self.nodes[0].peers.urls, ["http://192.0.2.1:80/govi-cache-peer"])

    def test_missing_nodes_are_remembered(self) -> None:
        """A node that is missing in an engine which has lost its data is forgotten after NODE_SECONDS."""
        other = self.nodes[1].peers
        for seconds in (NODE_SECONDS - REGISTER_SECONDS - 1, 3 * NODE_SECONDS):
            self.successResultOf(other.stopService())
            self.engine.model.entries.clear()
            self.pass_time(seconds)
            is_forgotten = seconds > NODE_SECONDS
            self.assertEqual(sorted(self.nodes[0].peers.urls), self.urls[2:] if is_forgotten else self.urls[1:])
            other.startService()
            self.pass_time(REGISTER_SECONDS + 1)
            self.assertEqual(sorted(self.nodes[0].peers.urls), self.urls[1:])

    def test_value_of_another_program(self) -> None:
        """A value that is no set of addresses is overwritten, and is not an outage of the engine."""
        self.engine.model.put(NODES, b"text")
        self.pass_time(REGISTER_SECONDS + 1)
        self.assertTrue(all(node.engine.status.is_sharing for node in self.nodes))
        for i, node in enumerate(self.nodes):
            self.assertEqual(sorted(node.peers.urls), self.urls[:i] + self.urls[i + 1 :])

    def test_listed_nodes(self) -> None:
        """Nodes of the configuration are known before the engine is reached, if they are allowed."""
        listed = ("127.0.0.1:8000", "192.0.2.1:80", "127.0.0.1:8003")
        node = Node(self.engine, "3", known=listed)
        self.nodes.append(node)
        self.assertIn(self.urls[0], node.peers.urls)
        self.assertNotIn(self.urls[1], node.peers.urls)
        self.assertEqual([url for url in node.peers.urls if "192.0.2.1" in url or ":8003" in url], [])
        self.pass_time(0.1)
        self.assertEqual(sorted(node.peers.urls), self.urls)

    def test_without_an_engine(self) -> None:
        """A board that the engine does not know is posted once to each other node, one of which may accept it."""
        self.engine.model.error = "ERR"
        for poster in self.nodes[0].posters.values():
            poster.immediate = None
        for accepted in (True, False):
            offer = self.nodes[0].peers.offer(self.board())
            self.pass_time(0.01)
            first, second = (poster.posts[-1] for poster in self.nodes[0].posters.values())
            first.errback(PostError("responded 403"))
            if accepted:
                second.callback(None)
                self.assertEqual(self.successResultOf(offer), "stored")
            else:
                self.assertNoResult(offer)  # another node may not answer
                self.pass_time(OFFER_SECONDS * 2 + 0.5)
                self.assertEqual(self.successResultOf(offer), "unknown")
            self.assertEqual(
                {len(poster.bodies) for poster in self.nodes[0].posters.values()}, {1 if accepted else 2}
            )

    def test_node_without_a_connection_to_the_engine(self) -> None:
        """A board whose request has ended, as far as the engine knows, is posted to the other nodes as well."""
        self.engine.model.put(REQUEST, b"+", 300_000)
        for poster in self.nodes[0].posters.values():
            poster.immediate = None
        for accepted, result in ((True, "stored"), (False, "repeated")):
            offer = self.nodes[0].peers.offer(self.board())
            self.pass_time(0.01)
            for poster in self.nodes[0].posters.values():
                if accepted:
                    poster.posts[-1].callback(None)
                else:
                    poster.posts[-1].errback(PostError("responded 403"))
            self.assertEqual(self.successResultOf(offer), result)

    def test_late_board_is_posted(self) -> None:
        """A board whose request has failed, or is no longer renewed, is posted too; its callback does not wait."""
        poster = self.nodes[0].posters[self.urls[1]]
        poster.immediate = None
        for n, (request, left) in enumerate(((b"-silent", 300_000), (b"1", 297_990), (b"1", 310_000)), 1):
            self.engine.model.put(REQUEST, request, left)
            offer = self.nodes[0].peers.offer(self.board())
            self.pass_time(0.01)
            self.assertEqual((self.successResultOf(offer), len(poster.posts)), ("stored", n))
        for _ in range(MAX_OFFERS):
            self.engine.model.put(REQUEST, b"-silent", 300_000)
            self.nodes[0].peers.offer(self.board())
            self.pass_time(0.01)
        self.assertEqual(len(poster.posts), MAX_OFFERS)

    def test_claim_that_is_renewed(self) -> None:
        """A board of a request that another node renews is not posted."""
        self.engine.model.put(REQUEST, b"1", 298_500)
        offer = self.nodes[0].peers.offer(self.board())
        self.pass_time(0.01)
        self.assertEqual(self.successResultOf(offer), "stored")
        self.assertEqual([poster.posts for poster in self.nodes[0].posters.values()], [[], []])

    def test_boards_that_wait_are_bounded(self) -> None:
        """No more than MAX_OFFERS boards without a request are offered at a time."""
        offers = [self.nodes[0].peers.offer(self.board()) for _ in range(MAX_OFFERS + 1)]
        self.pass_time(0.01)
        self.assertEqual(self.successResultOf(offers[-1]), "unknown")
        self.assertNoResult(offers[0])
        self.pass_time(OFFER_SECONDS * 2 + 0.5)
        self.assertEqual(self.successResultOf(offers[0]), "unknown")
