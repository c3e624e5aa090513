"""What others write reaches no log, page or terminal as a control character, and no line of a log without a bound.

These tests are plain functions: they wait for processes, not for the reactor.
"""

import gzip
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from unicodedata import category

import pytest
import zmq

from govi_server.runtime.printable_log import MAX_TRACEBACK_LINES
from govi_server.runtime.text import MAX_LINE_CHARACTERS
from tests import feed as kv
from tests.integration.conftest import Twistd, wait_for
from tests.ports import free_port

HOSTILE = {
    "colors and title": "\x1b[31m\x1b]0;owned\x07",
    "C1": "\x9b31m\x85\x90",
    "DEL and NUL": "\x7f\0\x08\x08",
    "forged line": "\n2026-01-01T00:00:00+0000 [forged#info] forged\r\n2026-01-01T00:00:00+0000 [forged#info] forged",
    "separators": "\u2028\u2029\u0085forged",
    "direction": "\u202e\u2066\u200f\ufeff",
    "fields of the log": "{log_time} {path!r} {{ {0.__class__} %s %(x)s",
    "long": "x" * 100_000,
    "long and hostile": "\x1b\u202e" * 20_000,
}
"""Texts that a terminal would obey, that forge lines of a log, or that fill it."""

MAX_STATISTICS_LINE = 100_000
"""Characters of a line of the statistics log: MAX_REQUESTS requests, with room to spare."""


def unprintable(text: str) -> set[str]:
    """Return the characters of a text that control a terminal or a page."""
    return {character for character in text if not character.isprintable() and category(character) != "Zs"}


def send(port: int, data: bytes) -> None:
    """Send bytes and no more, and wait for the end of the connection."""
    with closing(socket.create_connection(("127.0.0.1", port), 5)) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass
        except OSError:
            pass  # no more is sent, or the connection was reset


def requests(text: str) -> Iterator[bytes]:
    """Yield requests with a text in each place."""
    raw = text.encode("utf-8", "surrogatepass")
    quoted = "".join(f"%{byte:02x}" for byte in raw).encode()[:6000]
    end = b" HTTP/1.1\r\nHost: x\r\n\r\n"
    for path in (b"/kv55/", b"/board/", b"/tpc/", b"/", b"/line/", b"/siri/stop-monitoring.json?MonitoringRef="):
        yield b"GET " + path + quoted + end
    yield b"GET /places?q=" + quoted + end
    yield b"GET /" + raw + end
    yield raw + b" / HTTP/1.1\r\nHost: x\r\n\r\n"
    for name in (b"Host", b"User-Agent", b"Accept", b"Accept-Language", b"If-None-Match", b"Last-Event-ID", b"Range"):
        yield b"GET / HTTP/1.0\r\n" + name + b": " + raw + b"\r\n\r\n"
    for name in (b"X-Forwarded-For", b"Forwarded", b"Expect", b"Content-Length", b"Transfer-Encoding", b"Origin"):
        yield b"GET / HTTP/1.0\r\n" + name + b": " + raw + b"\r\n\r\n"
    yield b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw
    yield raw


def callbacks(text: str) -> Iterator[bytes]:
    """Yield bodies of callbacks with a text in each place."""
    raw = text.encode("utf-8", "surrogatepass")
    escaped = "".join(f"&#{ord(character)};" for character in text if ord(character) > 31)[:50_000].encode()
    for content in (raw, escaped):
        yield content
        yield b"<" + content + b"/>"
        yield b"<DRIS_55>" + content
        yield b"<DRIS_55><Request><Error>" + content + b"</Error></Request></DRIS_55>"
        code = b"<TimingPoint><TimingPointCode>" + content + b"</TimingPointCode></TimingPoint>"
        yield b"<DRIS_55><Request>" + code + b"</Request></DRIS_55>"
        yield b"<?xml version='1.0' encoding='" + content + b"'?><DRIS_55/>"
        yield b"<" + content + b" xmlns='" + content + b"'/>"
    yield gzip.compress(raw) + raw


class BadGateway:
    """A gateway that answers each POST with a hostile status line, header field and body."""

    def __init__(self) -> None:
        self.responses: list[bytes] = []
        for text in HOSTILE.values():
            raw = text.encode("utf-8", "surrogatepass")
            self.responses += [
                b"HTTP/1.1 500 " + raw + b"\r\nContent-Length: 0\r\n\r\n",
                b"HTTP/1.1 " + raw + b"\r\n\r\n",
                b"HTTP/1.1 500 No\r\nA: " + raw + b"\r\nConnection: close\r\n\r\n" + raw,
                raw,
            ]
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        n = 0
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                try:
                    connection.recv(1 << 16)
                    connection.sendall(self.responses[n % len(self.responses)])
                except OSError:
                    pass
            n += 1


def rows(text: str) -> Iterator[bytes]:
    """Yield KV8 messages with a text in each column."""
    value = text.replace("\r", "").replace("\n", "").replace("|", "")[:2000]
    for column in ("DataOwnerCode", "LinePlanningNumber", "JourneyNumber", "OperationDate", "TimingPointCode"):
        yield kv.passtimes({column: value})
    for column in ("MessageContent", "TripStopStatus", "ExpectedDepartureTime", "LastUpdateTimeStamp", "SideCode"):
        yield kv.passtimes({column: value})
    yield text.encode("utf-8", "surrogatepass")


@pytest.fixture
def program(twistd: Twistd, tmp_path: Path) -> "Iterator[tuple[subprocess.Popen[str], dict[str, int]]]":
    """Run a program with a feed and a gateway behind a proxy; yield its process and ports."""
    gateway = BadGateway()
    publisher: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
    ports = {name: free_port() for name in ("public", "haproxy", "admin", "callback", "demo")}
    ports |= {"gateway": gateway.port, "feed": publisher.bind_to_random_port("tcp://127.0.0.1")}
    config = tmp_path / "config.toml"
    config.write_text(
        'listen = ["tcp:{public}:interface=127.0.0.1", "haproxy:tcp:{haproxy}:interface=127.0.0.1"]\n'
        '[access]\nproxies = ["127.0.0.0/8"]\n[admin]\nlisten = "tcp:{admin}:interface=127.0.0.1"\n'
        '[statistics]\nfile = "statistics.log"\n[feed]\naddresses = ["tcp://127.0.0.1:{feed}"]\ngtfs = ""\n'
        '[modules.kv55]\nsource = "govi"\ngateway_url = "http://127.0.0.1:{gateway}/"\n'
        'callback = "tcp:{callback}:interface=127.0.0.1"\n[modules.live]\nsource = "kv78turbo"\n'.format(**ports)
    )
    process = twistd("govi-cache", "--config", str(config))
    wait_for(process, "govi-cache: http://")
    wait_for_ports(ports)
    feed(publisher)
    yield process, ports
    publisher.close(linger=0)
    gateway.socket.close()


def wait_for_ports(ports: dict[str, int]) -> None:
    """Wait until the endpoints listen."""
    end = time.monotonic() + 10
    for name in ("public", "haproxy", "admin", "callback"):
        while True:
            with closing(socket.socket()) as sock:
                if not sock.connect_ex(("127.0.0.1", ports[name])):
                    break
            assert time.monotonic() < end
            time.sleep(0.02)


def feed(publisher: "zmq.Socket[bytes]") -> None:
    """Publish hostile envelopes and rows, after the subscriber has connected."""
    time.sleep(1)
    for text in HOSTILE.values():
        raw = text.encode("utf-8", "surrogatepass")
        publisher.send_multipart([b"/GOVI/" + raw, gzip.compress(b"x")])
        publisher.send_multipart([b"/GOVI/KV8passtimes/" + raw, raw])
        for message in rows(text):
            publisher.send_multipart([b"/GOVI/KV8passtimes/" + raw[:100], gzip.compress(message)])


def get(port: int, path: str) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=15)
    connection.request("GET", path)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def attack(ports: dict[str, int]) -> None:
    """Send every text through every entry."""
    for n, text in enumerate(HOSTILE.values()):
        raw = text.encode("utf-8", "surrogatepass")
        for data in requests(text):
            send(ports["public"], data)
        send(ports["haproxy"], b"PROXY TCP4 " + raw + b" 127.0.0.1 1 2\r\nGET / HTTP/1.0\r\n\r\n")
        send(ports["haproxy"], b"PROXY " + raw + b"\r\n")
        for body in callbacks(text):
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(
                body
            )
            send(ports["callback"], head + body)
        for port in (ports["admin"], ports["callback"]):
            send(port, b"POST /" + raw + b" HTTP/1.1\r\nHost: " + raw + b"\r\nContent-Length: 0\r\n\r\n")
            send(port, raw)
        for code in range(4):
            send(ports["public"], b"GET /kv55/%d HTTP/1.0\r\n\r\n" % (1000 + 10 * n + code))


def test_nothing_hostile_reaches_logs_or_pages(
    program: "tuple[subprocess.Popen[str], dict[str, int]]", tmp_path: Path
) -> None:
    """No hostile text reaches logs, the statistics log, the status page, metrics or `govi-cache stats` unescaped."""
    process, ports = program
    attack(ports)
    pages = {path: get(ports["admin"], path) for path in ("/status", "/status.json", "/metrics", "/ready")}
    process.send_signal(signal.SIGTERM)
    log, _ = process.communicate(timeout=60)
    check_log(log)
    for path, page in pages.items():
        assert unprintable(page.replace("\n", "").replace("\t", "")) == set(), path
    statistics = (tmp_path / "statistics.log").read_text()
    for line in statistics.split("\n"):
        assert unprintable(line) == set()
        assert len(line) <= MAX_STATISTICS_LINE
    hostile = tmp_path / "hostile.log"
    request = '{{"status":200,"cache":"none","phases":{{"wait":5}},"module":"{0}","stop":"{0}"}}'
    texts = "".join(f"\\u{ord(character):04x}" for character in "\x1b[31m\x9b\x7f\u202e\n")
    line = f'{{"time":"2026-01-01T00:00:00+00:00","end":"client","requests":[{request.format(texts)}]}}\n'
    hostile.write_text(statistics + line)
    for options in ([], ["--json"], ["--html", str(tmp_path / "report.html")]):
        command = [str(Path(sys.executable).parent / "govi-cache"), "stats", str(hostile), *options]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert unprintable((result.stdout + result.stderr).replace("\n", "")) == set(), options
    assert unprintable((tmp_path / "report.html").read_text().replace("\n", "")) == set()


def check_log(log: str) -> None:
    """Check the lines of the program's log."""
    lines = log.split("\n")
    assert "\\x1b[31m" in log  # the texts did arrive
    for line in lines:
        assert unprintable(line.removeprefix("\t")) == set(), line[:300]
        assert len(line) <= MAX_LINE_CHARACTERS + 200, line[:300]
        assert "[forged#info]" not in line[:60], line[:300]
    assert all(line.startswith(("\t", "20")) for line in lines if line)
    assert max(map(len, log.split("\n20"))) < MAX_TRACEBACK_LINES * MAX_LINE_CHARACTERS
