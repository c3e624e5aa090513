"""Tests of requests while a snapshot is restored."""

import json

from govi_server.kv78turbo.restoration import MAX_WAIT_SECONDS
from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import FeedDisplays
from govi_server.modules.kv55_feed import Kv55Feed
from govi_server.modules.ovapi import ovapi_modules
from govi_server.modules.siri import Siri
from tests import feed as kv
from tests.client import Client
from tests.doubles import ingest
from tests.modules.test_kv55_feed import CODE, LiveTestCase, row

PATHS = (
    f"/board/{CODE}",
    f"/board/p{CODE}",
    f"/kv55/{CODE}",
    f"/kv55/{CODE}?limit=1",
    f"/tpc/{CODE}",
    f"/tpc/{CODE},30000002",
    "/stopareacode/LdBrug",
    f"/siri/stop-monitoring.json?MonitoringRef={CODE}",
)


class RestorationTests(LiveTestCase):
    """A feed that has sent nothing yet, and a snapshot that is being restored."""

    def setUp(self) -> None:
        super().setUp()
        self.up("UNKNOWN")
        BoardPages(FeedDisplays(self.feed), self.clock).setServiceParent(self.modules)
        Kv55Feed("kv55", self.feed).setServiceParent(self.modules)
        Siri(self.feed).setServiceParent(self.modules)
        for module in ovapi_modules(self.feed):
            module.setServiceParent(self.modules)
        self.feed.restoration.begin()

    def get(self, path: str) -> Client:
        client = self.client()
        client.get(path, Accept="application/json")
        self.clock.pump([0.0] * 30)
        return client

    def status(self, client: Client) -> int | None:
        """Return the status of a response; None before there is one."""
        self.clock.pump([0.0] * 30)
        return client.response().status if client.transport.value() else None

    def restore(self) -> None:
        ingest(self.feed, kv.planning({}, points=[{"StopAreaCode": "LdBrug"}]), kv.calendar("2026-01-01"))
        ingest(self.feed, kv.passtimes(row("1001", 30)))

    def test_requests_wait(self) -> None:
        """A request for a stop of which nothing is known waits until the snapshot is restored, and is served then."""
        clients = [self.get(path) for path in PATHS]
        self.assertEqual([self.status(client) for client in clients], [None] * len(PATHS))
        self.restore()
        self.feed.restoration.end()
        self.assertEqual([self.status(client) for client in clients], [200] * len(PATHS))

    def test_known_stops_do_not_wait(self) -> None:
        """A stop that is restored already is served."""
        self.restore()
        for path in PATHS[:5]:
            client = self.get(path)
            self.assertEqual(self.status(client), 200, path)
        self.assertEqual(len(json.loads(self.get(PATHS[0]).response().body)["stops"][0]["departures"]), 1)

    def test_wait_is_bounded(self) -> None:
        """After some seconds the response is what it would be without a snapshot; nothing is left of the request."""
        clients = [self.get(path) for path in PATHS]
        self.clock.advance(MAX_WAIT_SECONDS)
        self.assertEqual([self.status(client) for client in clients], [503] * len(PATHS))
        self.assertEqual(self.feed.restoration._waiters, {})

    def test_work_that_is_done_at_once(self) -> None:
        """Nothing is left of a response that would have been made at once, if it has to wait."""
        self.assertIsNone(self.feed.runner.result_now(self.feed.restoration.wait((CODE,))))
        self.assertEqual((self.feed.restoration._waiters, self.clock.getDelayedCalls()[1:]), ({}, []))

    def test_clients_that_leave(self) -> None:
        """Nothing is left of a client that closes its connection."""
        client = self.get(PATHS[0])
        client.leave()
        self.assertEqual(self.feed.restoration._waiters, {})
        self.feed.restoration.end()
