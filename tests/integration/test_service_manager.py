"""Tests of what supervisors do with the program: notifications, reloading, certificates, and forms of the log."""

import json
import os
import signal
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from tests.integration.conftest import Twistd, arguments, becomes_true, wait_for
from tests.integration.test_kv55 import make_certificate
from tests.integration.test_twistd import body_of
from tests.ports import free_port


def serial_number(port: int) -> int:
    """Return the serial number of the certificate on a port."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain) as client:
        certificate = client.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number


def test_states_are_notified(twistd: Twistd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd is notified when the program serves, reloads and stops, and regularly for its watchdog."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        port = free_port()
        process = twistd(*arguments(port))
        assert manager.recv(4096) == b"READY=1\nSTATUS=0 connections"
        assert b"</DRIS_55>" in body_of(f"http://127.0.0.1:{port}/kv55/57330430")
        while manager.recv(4096) != b"STATUS=0 connections\nWATCHDOG=1":
            pass
        process.send_signal(signal.SIGHUP)
        while not (message := manager.recv(4096)).startswith(b"RELOADING=1\nMONOTONIC_USEC="):
            assert b"WATCHDOG" in message
        assert manager.recv(4096).startswith(b"READY=1\n")
        process.send_signal(signal.SIGTERM)
        while manager.recv(4096) != b"STOPPING=1\nSTATUS=Stopping":
            pass
        process.communicate(timeout=60)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_hangup_reloads_the_configuration(twistd: Twistd, tmp_path: Path, workers: str) -> None:
    """SIGHUP applies a changed list of clients, also with relative paths, and names what needs a restart."""
    config, port = tmp_path / "config.toml", free_port()
    demo = '[modules.kv55]\nsource = "demo"\n'
    config.write_text(demo)
    process = twistd(*arguments(port, "--config", "config.toml", "--workers", workers))
    wait_for(process, "govi-cache: http://")
    assert b"</DRIS_55>" in body_of(f"http://127.0.0.1:{port}/kv55/57330430")
    config.write_text(f"{demo}[access]\nunlimited = []\nrate = 1\nburst = 1\n[cache]\nfresh = 30\n")
    process.send_signal(signal.SIGHUP)
    output = wait_for(process, "cache.fresh: has changed; needs a restart")
    assert "access.unlimited: reloaded" in output
    assert becomes_true(lambda: body_of(f"http://127.0.0.1:{port}/kv55/57330430").startswith(b"Too many requests"))
    config.write_text("nonsense")
    process.send_signal(signal.SIGHUP)
    wait_for(process, "Configuration not reloaded: ")


def test_certificate_is_reloaded(twistd: Twistd, tmp_path: Path) -> None:
    """A renewed certificate is used after SIGHUP; one without its key is not, and the previous one remains in use."""
    key, certificate, port = tmp_path / "key.pem", tmp_path / "certificate.pem", free_port()
    make_certificate(key, certificate)
    endpoint = f"ssl:{port}:interface=127.0.0.1:privateKey=key.pem:certKey=certificate.pem"
    process = twistd(*arguments(free_port(), "--listen", endpoint))
    wait_for(process, "govi-cache: https://")
    first = serial_number(port)
    make_certificate(tmp_path / "other.pem", certificate)
    process.send_signal(signal.SIGHUP)
    wait_for(
        process, "certificate not reloaded, the previous one is used: the private key is not that of the certificate"
    )
    assert serial_number(port) == first
    os.replace(tmp_path / "other.pem", key)
    process.send_signal(signal.SIGHUP)
    wait_for(process, "certificate reloaded")
    assert serial_number(port) == x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number != first


def test_log_format(twistd: Twistd, tmp_path: Path) -> None:
    """--log-format json writes JSON lines only, to stdout or to a file."""
    process = twistd(*arguments(free_port(), "--log-format", "json"))
    output = wait_for(process, "govi-cache: http://")
    process.send_signal(signal.SIGTERM)
    output += process.communicate(timeout=60)[0]
    assert {"info", "warn"} == {json.loads(line)["level"] for line in output.splitlines()}
    log = tmp_path / "log"
    process = twistd("--logfile", "log", *arguments(free_port(), "--log-format", "journal"))
    assert becomes_true(lambda: log.exists() and "govi-cache: http://" in log.read_text())
    assert all(line.startswith(("<6>", "<4>")) for line in log.read_text().splitlines())
