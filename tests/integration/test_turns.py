"""Expensive requests beside cheap ones, in the program as operators run it."""

import http.client
import json
from pathlib import Path
from threading import Thread

from tests.integration.conftest import Twistd, becomes_true
from tests.integration.live_feed import live_feed

STOPS, PASSTIMES = 400, 40
CODES = [str(30000001 + n) for n in range(STOPS)]


def get(port: int, path: str) -> tuple[int, bytes]:
    """Return the status and the body of a request over a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_others_are_served_between_slices(twistd: Twistd, tmp_path: Path) -> None:
    """While the boards of many stops are made, other clients are served again and again, and no turn is slow."""
    with live_feed(twistd, tmp_path) as feed:
        for start in range(0, STOPS, 50):
            feed.publish(
                *(
                    {"JourneyNumber": f"{code}{n}", "TimingPointCode": code, "UserStopCode": code}
                    for code in CODES[start : start + 50]
                    for n in range(PASSTIMES)
                )
            )
        assert becomes_true(lambda: json.loads(get(feed.port, "/tpc/")[1]).get(CODES[-1]) == PASSTIMES, 60)

        expensive: list[tuple[int, bytes]] = []
        thread = Thread(target=lambda: expensive.append(get(feed.port, "/tpc/" + ",".join(CODES))))
        thread.start()
        served = 0
        while thread.is_alive():
            assert get(feed.port, f"/kv55/{CODES[0]}")[0] == 200
            served += 1
        metrics = get(feed.admin, "/metrics")[1].decode()
    ((status, body),) = expensive
    assert status == 200
    assert sum(len(stop["Passes"]) for stop in json.loads(body).values()) == STOPS * PASSTIMES
    assert served > 10
    assert "govi_slow_turns_total 0.0" in metrics
    assert "govi_turn_seconds_count" in metrics
