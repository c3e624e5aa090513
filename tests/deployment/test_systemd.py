"""Tests of the systemd unit: the program under its restrictions, without systemd."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.deployment import sandbox
from tests.deployment.proxies import ETC, make_certificate
from tests.integration.conftest import TWISTD, becomes_true
from tests.ports import free_port

UNITS = ETC / "systemd"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[tuple[HTTPServer, threading.Event]]:
    """Yield a gateway over TLS that rejects all requests, and an event that is set by the first one."""
    make_certificate(tmp_path)
    received = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.set()
            self.send_error(503)

        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server, received
    server.shutdown()
    thread.join()
    server.server_close()


needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


class UnixConnection(HTTPConnection):
    """A connection over a unix socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


def status(connection: HTTPConnection, path: str = "/") -> int:
    """Return the status of a response, 0 for none."""
    with closing(connection):
        try:
            connection.request("GET", path, headers={"Host": "localhost"})
            response = connection.getresponse()
            response.read()
        except OSError:
            return 0
        return response.status


def start(directory: Path, *arguments: str, program: str = "govi-cache") -> "subprocess.Popen[bytes]":
    """Start a program under the restrictions of its unit; its output is in the file log of the directory."""
    twistd = [sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile=", program]
    environment = {**os.environ, "SSL_CERT_FILE": str(directory / "chain.pem")}
    with (directory / "log").open("w") as output:
        return subprocess.Popen(
            [sys.executable, sandbox.__file__, str(UNITS / f"{program}.service"), *twistd, *arguments],
            cwd=directory, env=environment, stdout=output, stderr=output,
        )  # fmt: skip


@needs_systemd
def test_everything_works_under_the_restrictions(gateway: tuple[HTTPServer, threading.Event], tmp_path: Path) -> None:
    """TLS both ways, unix sockets, IPv6, the feed, the manhole, snapshots and statistics work within the unit."""
    server, received = gateway
    tls, tcp6, admin, manhole = (free_port() for _ in range(4))
    (tmp_path / "govi-cache.toml").write_text(
        f"""
        [modules.kv55]
        source = "govi"
        gateway_url = "https://localhost:{server.server_port}/"
        callback = "tcp:{free_port()}:interface=127.0.0.1"
        [modules.live]
        source = "kv78turbo"
        [feed]
        addresses = ["tcp://127.0.0.1:{free_port()}"]
        timetable = "."
        gtfs = ""
        """
    )
    (tmp_path / "keys").touch()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id"], check=True)
    (tmp_path / "keys").write_bytes((tmp_path / "id.pub").read_bytes())
    process = start(
        tmp_path, "--config", "govi-cache.toml", "--statistics", "statistics.log", "--snapshot", "snapshot",
        "--listen", f"ssl:{tls}:interface=127.0.0.1:privateKey=key.pem:certKey=chain.pem",
        "--listen", "unix:http.sock", "--listen", f"tcp6:{tcp6}:interface=\\:\\:1",
        "--admin", f"tcp:{admin}:interface=127.0.0.1",
        "--manhole", f"tcp:{manhole}:interface=127.0.0.1", "--manhole-keys", "keys",
    )  # fmt: skip
    log = tmp_path / "log"
    try:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "chain.pem"))
        assert becomes_true(lambda: status(HTTPConnection("127.0.0.1", admin), "/health") == 200), log.read_text()
        assert status(HTTPSConnection("localhost", tls, context=trusted)) == 200
        assert status(UnixConnection(str(tmp_path / "http.sock"))) == 200
        assert status(HTTPConnection("::1", tcp6)) == 200
        assert status(HTTPConnection("127.0.0.1", admin), "/metrics") == 200
        assert status(HTTPSConnection("localhost", tls, context=trusted), "/kv55/57330430") >= 500
        assert received.is_set()
        options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        ssh = ["ssh", *options, "-tt", "-i", "id", "-p", f"{manhole}", "127.0.0.1"]
        prompt = subprocess.run(ssh, cwd=tmp_path, input=b"6 * 111\r\x04", capture_output=True, timeout=20)
        assert b"666" in prompt.stdout, prompt
    finally:
        process.terminate()
        process.wait(20)
    assert (tmp_path / "snapshot").exists()
    assert (tmp_path / "statistics.log").stat().st_size > 0
    text = log.read_text()
    assert "Traceback" not in text


@needs_systemd
def test_demo_works_under_the_restrictions(tmp_path: Path) -> None:
    """The demo, whose feed listens within the process, is served."""
    port = free_port()
    process = start(
        tmp_path, "--source", "demo", "--listen", f"tcp:{port}:interface=127.0.0.1", "--admin", "",
        "--callback", f"tcp:{free_port()}:interface=127.0.0.1",
    )  # fmt: skip
    try:
        assert becomes_true(lambda: status(HTTPConnection("127.0.0.1", port), "/tpc/57330430") == 200, 20), (
            tmp_path / "log"
        ).read_text()
    finally:
        process.terminate()
        process.wait(20)


@needs_systemd
def test_feed_proxy_works_under_the_restrictions(tmp_path: Path) -> None:
    """The feed proxy publishes, and serves its operators."""
    admin, publish = free_port(), free_port()
    process = start(
        tmp_path, "--feed", f"tcp://127.0.0.1:{free_port()}", "--publish", f"tcp://127.0.0.1:{publish}",
        "--admin", f"tcp:{admin}:interface=127.0.0.1", program="govi-feed-proxy",
    )  # fmt: skip
    log = tmp_path / "log"
    try:
        assert becomes_true(lambda: status(HTTPConnection("127.0.0.1", admin), "/metrics") == 200), log.read_text()
        socket.create_connection(("127.0.0.1", publish), 5).close()
        assert status(HTTPConnection("127.0.0.1", admin), "/health") == 503  # its feed does not exist
    finally:
        process.terminate()
        process.wait(20)
    assert "Traceback" not in log.read_text()
