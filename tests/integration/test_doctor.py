"""Tests of `govi-cache doctor` with real ports, files, certificates and publishers."""

import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec.structs import replace

from govi_server.command.doctor import examine
from govi_server.command.findings import Finding
from govi_server.command.machine import check_ports
from govi_server.settings_loader import load
from tests.command.test_main import run
from tests.integration.conftest import Twistd, arguments, wait_for
from tests.integration.test_kv55 import make_certificate
from tests.ports import free_port


def findings(now: datetime | None = None, **options: Any) -> list[Finding]:
    """Return the findings for settings, by dotted keys with __ instead of the dots; default: a demo."""
    settings = {
        "modules.kv55.source": "demo",
        "modules.kv55.callback": "tcp:0",
        "listen": ["tcp:0"],
        "admin.listen": "",
    }
    settings |= {key.replace("__", "."): value for key, value in options.items()}
    return list(examine(load(None, settings), None, now or datetime.now(UTC)))


def finding(subject: str, now: datetime | None = None, **options: Any) -> Finding:
    """Return the only finding about a subject."""
    (match,) = (finding for finding in findings(now, **options) if finding.subject == subject)
    assert match.advice or match.level == "ok"
    return match


@contextmanager
def listening(greeting: bytes) -> Iterator[int]:
    """Listen on a port in a context, and send each connection a greeting; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.sendall(greeting)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_ports(twistd: Twistd, tmp_path: Path) -> None:
    """A free port is fine, as is one of a running govi-cache; one of another program is a failure that names it."""
    assert finding("listen").level == "ok"
    port = free_port()
    server = twistd(*arguments(port))
    wait_for(server, "govi-cache: http://")
    endpoint = f"tcp:{port}:interface=127.0.0.1"
    assert finding("listen", listen=[endpoint]) == Finding(
        "ok", "listen", f"{endpoint}: used by govi-cache, process {server.pid}, without a configuration file"
    )
    other, *_ = check_ports(replace(load(None, {"modules.kv55.source": "kv78turbo"}), listen=(endpoint,)), "/x.toml")
    assert (other.level, f"another govi-cache, process {server.pid}" in other.text) == ("warn", True)
    with listening(b"SSH-2.0-x\r\n") as port:
        taken = finding("listen", listen=[f"tcp:{port}:interface=127.0.0.1"])
    assert (taken.level, "Address already in use" in taken.text) == ("fail", True)
    assert f"sport = :{port}" in taken.advice
    assert finding("admin.listen", admin__listen="tcp:0:interface=192.0.2.1").level == "fail"
    assert finding("listen", listen=[f"unix:{tmp_path}/x"]).level == "ok"
    assert finding("listen", listen=["unix:/nonexistent/x"]).level == "fail"


def test_socket_unit() -> None:
    """What only the service has, the socket of its unit, does not end the examination."""
    ports = ["--callback", "tcp:0", "--admin", ""]
    code, text = run("doctor", "--source", "demo", *ports, "--listen", "systemd:domain=INET:index=0")
    assert (code, text.partition("\n")[0]) == (
        0,
        "ok    listen: systemd:domain=INET:index=0: given by the socket unit",
    )


def test_clock() -> None:
    """A clock in the past is a failure."""
    assert finding("clock").level in ("ok", "warn")
    assert finding("clock", datetime(1970, 1, 1, tzinfo=UTC)).level == "fail"


def test_open_files() -> None:
    """A limit of open files below what the connections need is a warning with the number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert finding("open files", access__connections=1).level == ("ok" if hard > 1537 else "warn")
    low = finding("open files", access__connections=10**9)
    assert (low.level, "1000001536" in low.advice) == ("warn", True)


def test_files(tmp_path: Path) -> None:
    """Directories that are absent, and key files that others may write, are found."""
    assert finding("snapshot.file", snapshot__file=f"{tmp_path}/x").level == "ok"
    assert finding("snapshot.file", snapshot__file=f"{tmp_path}").level == "fail"
    absent = finding("statistics.file", statistics__file=f"{tmp_path}/a/statistics.log")
    assert (absent.level, absent.advice) == ("fail", f"mkdir -p {tmp_path}/a")
    keys = tmp_path / "keys"
    keys.touch(0o644)
    manhole: dict[str, Any] = {"manhole__listen": "tcp:0", "manhole__keys": f"{keys}"}
    assert finding("manhole.keys", **manhole).level == "ok"
    keys.chmod(0o666)
    assert finding("manhole.keys", **manhole) == Finding(
        "warn", "manhole.keys", f"{keys}: writable by others", f"chmod go-w {keys}"
    )


def test_timetable(tmp_path: Path) -> None:
    """A timetable directory without recent files is a warning, an absent one a failure."""
    live: dict[str, Any] = {"modules__kv55__source": "kv78turbo", "feed__addresses": []}
    assert finding("feed.timetable", **live, feed__timetable="/nonexistent").level == "fail"
    assert finding("feed.timetable", **live, feed__timetable=f"{tmp_path}").level == "warn"
    (tmp_path / "night.ctx").touch()
    assert finding("feed.timetable", **live, feed__timetable=f"{tmp_path}").level == "ok"
    os.utime(tmp_path / "night.ctx", (0, 0))
    assert finding("feed.timetable", **live, feed__timetable=f"{tmp_path}").level == "warn"


def test_certificates(tmp_path: Path) -> None:
    """Expired certificates, keys of others, and files that are absent or readable by all are found."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make_certificate(key, certificate)
    key.chmod(0o600)
    endpoint = f"ssl:0:privateKey={key}:certKey={certificate}"

    def level(now: datetime | None = None) -> str:
        found = [found for found in findings(now, listen=[endpoint]) if str(tmp_path) in found.text]
        assert all(one.advice for one in found if one.level != "ok")
        return found[-1].level

    now = datetime.now(UTC)
    assert level() in ("ok", "warn")
    assert level(now + timedelta(days=40_000)) == "fail"
    key.chmod(0o644)
    assert level() == "warn"
    make_certificate(key, tmp_path / "other.pem")
    assert level() == "fail"
    key.unlink()
    assert level() == "fail"


def test_gateway() -> None:
    """A gateway that refuses connections, speaks no TLS, or whose name is unknown, is a failure."""
    govi: dict[str, Any] = {"modules__kv55__source": "govi"}
    subject = "modules.kv55.gateway_url"
    with listening(b"") as port:
        assert finding(subject, **govi, modules__kv55__gateway_url=f"http://127.0.0.1:{port}/").level == "ok"
        broken = finding(subject, **govi, modules__kv55__gateway_url=f"https://127.0.0.1:{port}/")
        assert broken.level == "fail"
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        plain = finding(subject, **govi, modules__kv55__gateway_url=f"https://127.0.0.1:{port}/")
        assert (plain.level, "no TLS" in plain.text) == ("fail", True)
    refused = finding(subject, **govi, modules__kv55__gateway_url=f"http://127.0.0.1:{port}/")
    assert (refused.level, "refused" in refused.text) == ("fail", True)
    local = {
        **govi,
        "modules__kv55__gateway_url": f"http://127.0.0.1:{port}/",
        "modules__kv55__allow": ["192.0.2.0/24"],
    }
    assert finding("modules.kv55.allow", **local).level == "warn"
    unknown = finding(subject, **govi, modules__kv55__gateway_url="http://gateway.invalid/")
    assert unknown.text.startswith("gateway.invalid: the name cannot be resolved")


def test_feed() -> None:
    """A publisher is recognized by its greeting."""
    live: dict[str, Any] = {"modules__kv55__source": "kv78turbo"}
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        assert finding("feed.addresses[0]", **live, feed__addresses=[f"tcp://127.0.0.1:{port}"]).level == "ok"
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        other = finding("feed.addresses[0]", **live, feed__addresses=[f"tcp://127.0.0.1:{port}"])
    assert (other.level, "does not speak ZeroMQ" in other.text) == ("fail", True)


def test_planning(tmp_path: Path) -> None:
    """A publisher of GTFS, or a file, that cannot be reached is a warning; without a feed, it is a failure."""
    live: dict[str, Any] = {"modules__kv55__source": "kv78turbo", "feed__addresses": ["ipc:///x"]}
    with listening(b"") as port:
        address = f"http://127.0.0.1:{port}/govi/"
        assert finding("feed.gtfs", **live, feed__gtfs=address).level == "ok"
    assert finding("feed.gtfs", **live, feed__gtfs=address).level == "warn"
    live["feed__addresses"] = []
    assert finding("feed.gtfs", **live, feed__gtfs=address).level == "fail"
    assert finding("feed.gtfs", **live, feed__gtfs=f"{tmp_path}").level == "ok"
    assert finding("feed.gtfs", **live, feed__gtfs=f"{tmp_path}/x").level == "fail"


def test_engine(tmp_path: Path) -> None:
    """An engine is recognized by its reply, also one that requires a password; another program is a failure."""
    govi: dict[str, Any] = {"modules__kv55__source": "govi", "modules__kv55__gateway_url": "http://127.0.0.1:1/"}
    for reply, level in (
        (b"+PONG\r\n", "ok"),
        (b"-NOAUTH Authentication required.\r\n", "ok"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "fail"),
        (b"", "fail"),
    ):
        with listening(reply) as port:
            assert finding("share.url", **govi, share__url=f"redis://127.0.0.1:{port}/0").level == level
    assert finding("share.url", **govi, share__url=f"redis://127.0.0.1:{port}/0").level == "fail"
    absent = finding("share.url", **govi, share__url=f"unix://{tmp_path}/x")
    assert (absent.level, "No such file" in absent.text) == ("fail", True)


@pytest.mark.parametrize(("words", "status"), [(["--snapshot", "/nonexistent/x"], 1), ([], 0)])
def test_exit_status(words: list[str], status: int) -> None:
    """The command prints all findings with advice; its exit status is 1 after a failure."""
    ports = ["--listen", "tcp:0", "--callback", "tcp:0", "--admin", ""]
    code, text = run("doctor", "--source", "demo", *ports, *words)
    assert code == status
    assert "ok    listen: tcp:0: free\n" in text
    assert (
        "fail  snapshot.file: /nonexistent: no such directory\n      -> mkdir -p /nonexistent\n" in text
    ) == status


def test_invalid_configuration() -> None:
    """The problems of the configuration are failures."""
    code, text = run("doctor", "--source", "demo", "--listen", "tcp:x")
    assert (code, text.partition(" invalid")[0]) == (1, "fail  configuration: --listen:")
