"""Tests of the proxies' files in etc/: real clients over TLS, event streams, and restarts of the nodes."""

import gzip
import json
import threading
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.deployment.proxies import PROXIES, STOP, Node, Site, is_installed, read_event, running_site
from tests.integration.conftest import becomes_true

REQUESTS = 10_000
CLIENTS = 8


def skip_if_absent(name: str) -> None:
    """Skip the test if a proxy is not installed."""
    if not is_installed(PROXIES[name][1]):
        pytest.skip(f"{PROXIES[name][1]} is not installed")


@pytest.mark.parametrize("name", PROXIES)
def test_clients_are_served(name: str, tmp_path: Path) -> None:
    """Responses are compressed, clients keep their addresses, and event streams are passed on at once."""
    skip_if_absent(name)
    with running_site(name, tmp_path) as site:
        stream = site.client().get("/events/99999999?as=json")
        board = read_event(stream)
        assert board["event"] == "board"

        client = site.client("127.9.8.7")
        response = client.get(
            f"/tpc/{STOP}", Accept_Encoding="gzip", X_Forwarded_For="192.0.2.1", Forwarded="for=192.0.2.1"
        )
        assert (response.status, response.getheader("Content-Encoding")) == (200, "gzip")
        assert STOP in json.loads(gzip.decompress(response.read()))
        client.close()

        long_list = ",".join([STOP] * 1500)  # 13 kB
        assert site.client().body(f"/tpc/{long_list}")[0] == 200

        again = site.client().get("/events/99999999?as=json", Last_Event_ID=board["id"])
        assert read_event(again)["event"] == "beat"
        assert read_event(stream)["event"] == "beat"  # after 10 s

        site.nodes[0].stop()
        if len(site.nodes) == 1:
            *_, last = iter(lambda: read_event(again), {})
            assert last["event"] == "bye"
        else:
            assert site.status(f"/kv55/{STOP}") == 200
        site.nodes[0].start()
        site.nodes[0].wait()
        assert becomes_true(lambda: site.status(f"/kv55/{STOP}") == 200, 30)

        for node in site.nodes:
            node.stop()  # writes the statistics of its connections
        statistics = "".join(node.statistics.read_text() for node in site.nodes)
        assert '"127.9.8.0/24"' in statistics
        assert "192.0.2." not in statistics


class Load:
    """Clients that send requests until they are stopped, half of them with a new connection for each."""

    def __init__(self, site: Site, paths: list[str]) -> None:
        self._site = site
        self._paths = paths
        self._stopping = threading.Event()
        self.succeeded = [0] * CLIENTS
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        client = self._site.client()
        while not self._stopping.wait(0.02):
            path = self._paths[self.succeeded[number] % len(self._paths)]
            try:
                status, body = client.body(path)
                if status == 200 and body:
                    self.succeeded[number] += 1
                else:
                    self.failures.append(f"{path}: {status} {body[:200]!r}")
            except (OSError, HTTPException) as error:
                self.failures.append(f"{path}: {error!r}")
            if number % 2:
                client.close()

    def finish(self, total: int) -> None:
        """Let the clients send the rest of so many requests, and stop."""
        becomes_true(lambda: sum(self.succeeded) + len(self.failures) >= total, 300)
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def wait_for_requests(node: Node) -> None:
    """Wait until a node that has restarted has served requests."""
    before = node.statistics.stat().st_size
    assert becomes_true(lambda: node.statistics.stat().st_size > before, 30)


@pytest.mark.parametrize(
    ("name", "paths"), [("haproxy", [f"/kv55/{STOP}", f"/tpc/{STOP}"]), ("nginx-nodes", [f"/kv55/{STOP}"])]
)
def test_rolling_restart(name: str, paths: list[str], tmp_path: Path) -> None:
    """While three nodes are restarted one after another, none of 10,000 requests fails."""
    skip_if_absent(name)
    with running_site(name, tmp_path) as site:
        load = Load(site, paths)
        try:
            for node in site.nodes:
                node.stop()
                node.start()
                node.wait()
                wait_for_requests(node)
        finally:
            load.finish(REQUESTS)
        assert load.failures == []
        assert sum(load.succeeded) >= REQUESTS
