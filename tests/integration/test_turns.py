"""Expensive requests beside cheap ones, in the program as operators run it."""

import gzip
import http.client
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import zmq

from govi_server.runtime.clock import LOCAL_ZONE
from tests import feed as kv
from tests.integration.conftest import Twistd, arguments, free_port, wait_for

STOPS, PASSTIMES = 400, 40
CODES = [str(30000001 + n) for n in range(STOPS)]


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Any]:
    """Yield a socket that publishes a feed."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.linger = 0
        publisher.bind(f"ipc://{tmp_path}/feed")
        yield publisher


def passtimes(codes: list[str]) -> bytes:
    """Return a KV8 message of departures in half an hour from stops."""
    now = datetime.now(LOCAL_ZONE)
    departure = now + timedelta(minutes=30)
    times = ("TargetArrivalTime", "TargetDepartureTime", "ExpectedArrivalTime", "ExpectedDepartureTime")
    row = {
        "OperationDate": f"{departure:%Y-%m-%d}",
        "LastUpdateTimeStamp": now.isoformat(timespec="seconds"),
        **dict.fromkeys(times, f"{departure:%H:%M}:00"),
    }
    return kv.passtimes(
        *(
            {**row, "JourneyNumber": f"{code}{n}", "TimingPointCode": code, "UserStopCode": code}
            for code in codes
            for n in range(PASSTIMES)
        ),
        published=now.isoformat(),
    )


def get(port: int, path: str) -> tuple[int, bytes]:
    """Return the status and the body of a request over a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_others_are_served_between_slices(twistd: Twistd, publisher: Any, tmp_path: Path) -> None:
    """While the boards of many stops are made, other clients are served again and again, and no turn is slow."""
    port, admin = free_port(), free_port()
    more = ["--feed", f"ipc://{tmp_path}/feed", "--admin", f"tcp:{admin}:interface=127.0.0.1"]
    process = twistd(*arguments(port, *more))
    wait_for(process, "for govi-cache")
    for _ in range(2):  # for KV7 and KV8
        publisher.recv()
    for start in range(0, STOPS, 50):
        message = gzip.compress(passtimes(CODES[start : start + 50]), 1)
        publisher.send_multipart([b"/GOVI/KV8passtimes/LIN", message])
    while json.loads(get(port, "/tpc/")[1]).get(CODES[-1]) != PASSTIMES:
        pass

    expensive: list[tuple[int, bytes]] = []
    thread = Thread(target=lambda: expensive.append(get(port, "/tpc/" + ",".join(CODES))))
    thread.start()
    served = 0
    while thread.is_alive():
        assert get(port, f"/kv55/{CODES[0]}")[0] == 200
        served += 1
    ((status, body),) = expensive
    assert status == 200
    assert sum(len(stop["Passes"]) for stop in json.loads(body).values()) == STOPS * PASSTIMES
    assert served > 10
    metrics = get(admin, "/metrics")[1].decode()
    assert "govi_slow_turns_total 0.0" in metrics
    assert "govi_turn_seconds_count" in metrics
