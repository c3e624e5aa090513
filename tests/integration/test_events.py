"""Tests of event streams of the program as operators run it."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from urllib.request import urlopen

from tests.integration.conftest import Twistd, arguments, wait_for
from tests.integration.live_feed import LiveFeed, live_feed
from tests.ports import free_port

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


def test_streams_end_on_sigterm(twistd: Twistd) -> None:
    """On SIGTERM every stream gets a last event with the time to reconnect, and the program exits."""
    port = free_port()
    process = twistd(*arguments(port))
    wait_for(process, "govi-cache: http://")
    clients = [connect(port, "/events/57330430") for _ in range(20)]
    streams = [events(client) for client in clients]
    assert {next(stream)[0] for stream in streams} == {"board"}
    process.send_signal(signal.SIGTERM)
    for stream in streams:
        assert [name for name, _ in stream if name != "board"] == ["bye"]
    for client in clients:
        client.close()
    output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output


def number_in(data: str) -> int:
    """Return the number in the notes of an event; -1 if there are no departures yet."""
    departures = json.loads(data)["stops"][0]["departures"]
    return int(departures[0]["note"].split()[0]) if departures else -1


def publish(feed: LiveFeed, number: int) -> None:
    """Change the board: publish departures with long notes that begin with number."""
    feed.publish(*({"MessageContent": f"{number} {NOTE}", "JourneyNumber": f"{n}"} for n in range(PASSTIMES)))


PATH = f"/events/{STOP}?as=json&limit={PASSTIMES}"


def test_slow_reader_gets_the_latest_board(twistd: Twistd, tmp_path: Path) -> None:
    """A client that pauses reading gets the latest board when it reads again, and not all boards before it."""
    with live_feed(twistd, tmp_path, CONFIG.format(connection=300)) as feed:
        reader, slow = connect(feed.port, PATH), connect(feed.port, PATH, 4096)
        stream = events(reader)
        last = 8
        for number in range(1, last + 1):
            publish(feed, number)
            while number_in(next(data for name, data in stream if name == "board")) != number:
                pass
        received = []
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # from now on it reads quickly
        for name, data in events(slow):
            if name == "board":
                received.append(number_in(data))
                if received[-1] == last:
                    break
        reader.close()
        slow.close()
    assert received[-1] == last
    assert len(received) < last  # an empty board, those in the buffers of sockets, and the last one


def test_stalled_reader_is_disconnected(twistd: Twistd, tmp_path: Path) -> None:
    """A client that stops reading is disconnected, and boards do not accumulate for it."""
    with live_feed(twistd, tmp_path, CONFIG.format(connection=2)) as feed:
        stalled = connect(feed.port, PATH, 4096)

        def sent_to_disconnected() -> list[int]:
            """Return the bytes sent to each client that was disconnected."""
            lines = map(json.loads, (tmp_path / "statistics.log").read_text().split("\n")[:-1])
            return [entry["bytes"] for line in lines if line["end"] == "timeout" for entry in line["requests"]]

        def streams() -> int:
            """Return the number of open streams."""
            with urlopen(f"http://127.0.0.1:{feed.admin}/status.json") as status:
                return int(json.load(status)["connections"]["streams"])

        end = time.monotonic() + 60
        for number in count(1):
            if sent_to_disconnected():
                break
            assert time.monotonic() < end, "the client was not disconnected"
            publish(feed, number)
            time.sleep(0.4)  # events are made twice a second
        (sent,) = sent_to_disconnected()
        assert sent < 5 * PASSTIMES * (len(NOTE) + 1000)  # the buffers of sockets and one more board
        while streams():
            assert time.monotonic() < end, "the stream has not ended"
            time.sleep(0.05)
        stalled.close()
