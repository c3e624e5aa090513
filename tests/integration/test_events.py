"""Tests of event streams of the program as operators run it."""

import gzip
import json
import signal
import socket
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import zmq

from govi_server.runtime.clock import LOCAL_ZONE
from tests import feed as kv
from tests.integration.conftest import Twistd, arguments, free_port, wait_for

STOP = "30000001"
PASSTIMES = 900
NOTE = "x" * 500
"""A note on each departure, as long as the feed allows, so that a few events exceed the buffers of sockets."""
CONFIG = """
[limits]
connection = {connection}
[gateway]
answer = 1.0
[feed.subscriber]
recovery = 0.1
"""


def connect(port: int, path: str, receive_buffer: int | None = None) -> socket.socket:
    """Return a socket that has requested a stream. receive_buffer: the size of its buffer, in bytes."""
    client = socket.socket()
    client.settimeout(20)
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def events(client: socket.socket) -> Iterator[tuple[str, str]]:
    """Yield the events with their data, until the server ends the stream."""
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
    """Yield a socket that publishes a feed."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.linger = 0
        publisher.bind(f"ipc://{tmp_path}/feed")
        yield publisher


def test_streams_end_on_sigterm(twistd: Twistd) -> None:
    """On SIGTERM every stream gets a last event with the time to reconnect, and the program exits."""
    port = free_port()
    process = twistd(*arguments(port))
    wait_for(process, "Open http://")
    clients = [connect(port, "/events/57330430") for _ in range(20)]
    streams = [events(client) for client in clients]
    assert {next(stream)[0] for stream in streams} == {"board"}
    process.send_signal(signal.SIGTERM)
    for stream in streams:
        assert [name for name, _ in stream if name != "board"] == ["bye"]
    for client in clients:
        client.close()
    output, _ = process.communicate(timeout=10)
    assert "Traceback" not in output


def passtimes(number: int) -> bytes:
    """Return a KV8 message of departures in half an hour, with long notes that begin with number."""
    now = datetime.now(LOCAL_ZONE)
    departure = now + timedelta(minutes=30)
    times = ("TargetArrivalTime", "TargetDepartureTime", "ExpectedArrivalTime", "ExpectedDepartureTime")
    row = {
        "OperationDate": f"{departure:%Y-%m-%d}",
        "LastUpdateTimeStamp": now.isoformat(timespec="seconds"),
        "MessageContent": f"{number} {NOTE}",
        **dict.fromkeys(times, f"{departure:%H:%M}:00"),
    }
    return kv.passtimes(
        *({**row, "JourneyNumber": f"{journey}"} for journey in range(PASSTIMES)), published=now.isoformat()
    )


def number_in(data: str) -> int:
    """Return the number in the notes of an event; -1 if there are no departures yet."""
    departures = json.loads(data)["stops"][0]["departures"]
    return int(departures[0]["note"].split()[0]) if departures else -1


def start_with_feed(twistd: Twistd, publisher: Any, directory: Path, connection: float) -> tuple[int, int]:
    """Start a govi-cache that is subscribed to the publisher; return its public and its operators' port.

    connection: seconds after which a client that does not read is disconnected.
    """
    port, admin = free_port(), free_port()
    (directory / "config.toml").write_text(CONFIG.format(connection=connection))
    more = ["--config", "config.toml", "--feed", f"ipc://{directory}/feed", "--statistics", "statistics.log"]
    process = twistd(*arguments(port, *more, "--admin", f"tcp:{admin}:interface=127.0.0.1"))
    wait_for(process, "for govi-cache")
    for _ in range(2):  # for KV7 and KV8
        publisher.recv()
    return port, admin


def publish(publisher: Any, number: int) -> None:
    """Change the board."""
    publisher.send_multipart([b"/GOVI/KV8passtimes/LIN", gzip.compress(passtimes(number), 1)])


PATH = f"/events/{STOP}?as=json&limit={PASSTIMES}"


def test_slow_reader_gets_the_latest_board(twistd: Twistd, publisher: Any, tmp_path: Path) -> None:
    """A client that pauses reading gets the latest board when it reads again, and not all boards before it."""
    port, _ = start_with_feed(twistd, publisher, tmp_path, connection=300)
    reader, slow = connect(port, PATH), connect(port, PATH, 4096)
    stream = events(reader)
    last = 8
    for number in range(1, last + 1):
        publish(publisher, number)
        while number_in(next(data for name, data in stream if name == "board")) != number:
            pass
    received = []
    for name, data in events(slow):
        if name == "board":
            received.append(number_in(data))
            if received[-1] == last:
                break
    assert received[-1] == last
    assert len(received) < last  # an empty board, those in the buffers of sockets, and the last one
    reader.close()
    slow.close()


def test_stalled_reader_is_disconnected(twistd: Twistd, publisher: Any, tmp_path: Path) -> None:
    """A client that stops reading is disconnected, and boards do not accumulate for it."""
    port, admin = start_with_feed(twistd, publisher, tmp_path, connection=2)
    stalled = connect(port, PATH, 4096)

    def sent_to_disconnected() -> list[int]:
        """Return the bytes sent to each client that was disconnected."""
        lines = map(json.loads, (tmp_path / "statistics.log").read_text().splitlines())
        return [entry["bytes"] for line in lines if line["end"] == "timeout" for entry in line["requests"]]

    def streams() -> int:
        """Return the number of open streams."""
        with urlopen(f"http://127.0.0.1:{admin}/status.json") as status:
            return int(json.load(status)["connections"]["streams"])

    end = time.monotonic() + 60
    for number in count(1):
        if sent_to_disconnected():
            break
        assert time.monotonic() < end, "the client was not disconnected"
        publish(publisher, number)
        time.sleep(0.1)
    (sent,) = sent_to_disconnected()
    assert sent < 5 * PASSTIMES * (len(NOTE) + 1000)  # the buffers of sockets and one more board
    while streams():
        assert time.monotonic() < end, "the stream has not ended"
        time.sleep(0.05)
    stalled.close()
