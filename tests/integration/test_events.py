"""Streams of events from the program as an operator runs it."""

import gzip
import json
import signal
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import zmq

from govi_server.runtime.clock import LOCAL_ZONE
from tests import feed as kv
from tests.integration.conftest import Twistd, arguments, free_port, wait_for

STOP = "30000001"
PASSES = 100
LONG = "x" * 20_000
"""What is said of each departure, so that some events are more than what sockets take."""
CONFIG = """
[limits]
connection = 4.0
[gateway]
answer = 3.0
[feed.subscriber]
recovery = 0.1
"""


def listen(port: int, path: str, receive: int | None = None) -> socket.socket:
    """Listen to a board. receive: bytes that are taken without being read."""
    client = socket.socket()
    client.settimeout(20)
    if receive is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def events(client: socket.socket) -> Iterator[tuple[str, str]]:
    """Give the events that come, each with its data, until the server ends."""
    received = b""
    while more := client.recv(1 << 20):
        received += more
        while b"\n\n" in received:
            block, _, received = received.partition(b"\n\n")
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line)
            if "event" in fields:
                yield fields["event"], fields.get("data", "")


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Any]:
    """Give a socket that a feed can be published on."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.linger = 0
        publisher.bind(f"ipc://{tmp_path}/feed")
        yield publisher


def test_farewell(twistd: Twistd) -> None:
    """On SIGTERM every listener is told goodbye and when to come back, and nothing is waited for."""
    port = free_port()
    process = twistd(*arguments(port))
    wait_for(process, "Try http://")
    clients = [listen(port, "/events/57330430") for _ in range(20)]
    streams = [events(client) for client in clients]
    assert {next(stream)[0] for stream in streams} == {"board"}
    process.send_signal(signal.SIGTERM)
    for stream in streams:
        assert [name for name, _ in stream if name != "board"] == ["bye"]
    for client in clients:
        client.close()
    said, _ = process.communicate(timeout=10)
    assert "Traceback" not in said


def passes(told: int) -> bytes:
    """Say of departures in half an hour what is long, with a number."""
    now = datetime.now(LOCAL_ZONE)
    leaves = now + timedelta(minutes=30)
    times = ("TargetArrivalTime", "TargetDepartureTime", "ExpectedArrivalTime", "ExpectedDepartureTime")
    row = {
        "OperationDate": f"{leaves:%Y-%m-%d}",
        "LastUpdateTimeStamp": now.isoformat(timespec="seconds"),
        "MessageContent": f"{told} {LONG}",
        **dict.fromkeys(times, f"{leaves:%H:%M}:00"),
    }
    return kv.passtimes(*({**row, "JourneyNumber": f"{n}"} for n in range(PASSES)), published=now.isoformat())


def number(data: str) -> int:
    """Read the number of what was said; -1 if nothing was yet."""
    departures = json.loads(data)["stops"][0]["departures"]
    return int(departures[0]["note"].split()[0]) if departures else -1


def test_slow_listener(twistd: Twistd, publisher: Any, tmp_path: Path) -> None:
    """Who does not read is sent what sockets take, and the newest board once he reads; or else he is dropped."""
    port, admin = free_port(), free_port()
    (tmp_path / "config.toml").write_text(CONFIG)
    more = ["--config", "config.toml", "--feed", f"ipc://{tmp_path}/feed", "--statistics", "statistics.log"]
    process = twistd(*arguments(port, *more, "--admin", f"tcp:{admin}:interface=127.0.0.1"))
    wait_for(process, "Listening on")
    for _ in range(2):  # for KV7 and KV8
        publisher.recv()
    path = f"/events/{STOP}?as=json&limit={PASSES}"
    reader, slow, lost = listen(port, path), listen(port, path, 4096), listen(port, path, 4096)
    stream = events(reader)

    def tell(told: int) -> None:
        """Change the board, and wait until who reads has it."""
        publisher.send_multipart([b"/GOVI/KV8passtimes/LIN", gzip.compress(passes(told), 1)])
        while number(next(data for name, data in stream if name == "board")) != told:
            pass

    for told in range(1, 5):
        tell(told)
    heard = []
    for name, data in events(slow):
        if name == "board":
            heard.append(number(data))
            if heard[-1] == told:
                break
    assert len(heard) <= told  # an empty one at first; what was between is of no interest any more
    slow.close()

    def dropped() -> list[int]:
        """Give the bytes that those were sent who were dropped."""
        lines = map(json.loads, (tmp_path / "statistics.log").read_text().splitlines())
        return [one["bytes"] for line in lines if line["end"] == "timeout" for one in line["requests"]]

    while not dropped():
        told += 1
        assert told < 40, "who takes nothing is not dropped"
        tell(told)
    (sent,) = dropped()
    assert sent < len(heard) * PASSES * (len(LONG) + 1000)
    with urlopen(f"http://127.0.0.1:{admin}/status.json") as status:
        assert json.load(status)["connections"]["streams"] == 1
    reader.close()
    lost.close()
