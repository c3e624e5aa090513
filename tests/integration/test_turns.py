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


def slow_turns(port: int) -> int:
    """Return the number of slow turns so far; on a slow machine the start has one."""
    metrics = get(port, "/metrics")[1]
    assert b"govi_turn_seconds_count" in metrics
    (line,) = (line for line in metrics.splitlines() if line.startswith(b"govi_slow_turns_total "))
    return int(float(line.split()[1]))


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
        before = slow_turns(feed.admin)
        thread = Thread(target=lambda: expensive.append(get(feed.port, "/tpc/" + ",".join(CODES))))
        thread.start()
        served = 0
        while thread.is_alive():
            assert get(feed.port, f"/kv55/{CODES[0]}")[0] == 200
            served += 1
        after = slow_turns(feed.admin)
    ((status, body),) = expensive
    assert status == 200
    assert sum(len(stop["Passes"]) for stop in json.loads(body).values()) == STOPS * PASSTIMES
    assert served > 10
    assert after == before
