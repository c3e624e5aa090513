"""Examinations of ``govi-cache doctor``: whether gateways and feeds can be reached."""

import socket
import ssl
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import urlsplit

from cryptography.x509 import load_der_x509_certificate

from govi_server.command.certificates import expiry
from govi_server.command.findings import Finding, fail, ok
from govi_server.settings import Config
from govi_server.sharing.address import parse_engine_url

TIMEOUT_SECONDS = 5.0
"""Time for a connection, and for a greeting."""

GREETING_BYTES = 10
"""The signature of a ZMTP greeting: 0xFF, eight bytes, 0x7F (ZMTP 3.1, RFC 37 of ZeroMQ)."""


def check_gateways(config: Config, now: datetime) -> Iterator[Finding]:
    """Examine whether gateways accept connections, and their certificates. Sends them no request."""
    for name, module in config.modules.items():
        if module.source != "govi":
            continue
        subject = f"modules.{name}.gateway_url"
        url = urlsplit(module.gateway_url)
        host, is_tls = url.hostname or "", url.scheme == "https"
        port = url.port or (443 if is_tls else 80)
        try:
            with socket.create_connection((host, port), TIMEOUT_SECONDS) as sock:
                if is_tls:
                    yield _check_tls(subject, sock, host, now)
                else:
                    yield ok(subject, f"{host}:{port} accepts connections")
        except OSError as error:
            yield _unreachable(subject, host, port, error)


def check_engine(config: Config) -> Iterator[Finding]:
    """Examine whether an engine of shared boards accepts connections."""
    if config.share.url:
        for host, port in parse_engine_url(config.share.url).hosts:
            try:
                socket.create_connection((host, port), TIMEOUT_SECONDS).close()
            except OSError as error:
                yield _unreachable("share.url", host, port, error)
            else:
                yield ok("share.url", f"{host}:{port} accepts connections")


def _check_tls(subject: str, sock: socket.socket, host: str, now: datetime) -> Finding:
    try:
        with ssl.create_default_context().wrap_socket(sock, server_hostname=host) as tls:
            certificate = tls.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        advice = "ask the operator of the gateway for a valid certificate; the program rejects this one as well"
        return fail(subject, f"certificate of {host}: {error.verify_message}", advice)
    assert certificate is not None
    return expiry(subject, load_der_x509_certificate(certificate), f"certificate of {host}", now)


def _unreachable(subject: str, host: str, port: int, error: OSError) -> Finding:
    if isinstance(error, socket.gaierror):
        return fail(subject, f"{host}: the name cannot be resolved ({error.strerror})", "check the name, and the DNS")
    reason = "no response" if isinstance(error, TimeoutError) else error.strerror or str(error)
    return fail(subject, f"{host}:{port}: {reason}", "check the address, and the firewalls in between")


def check_feed(config: Config) -> Iterator[Finding]:
    """Examine whether the addresses of the live feed are ZeroMQ publishers."""
    if not config.is_live:
        return
    for index, address in enumerate(config.feed.addresses):
        subject = f"feed.addresses[{index}]"
        if not address.startswith("tcp://"):
            yield ok(subject, f"{address}: not examined")
            continue
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_SECONDS) as sock:
                greeting = b""
                while len(greeting) < GREETING_BYTES and (data := sock.recv(GREETING_BYTES - len(greeting))):
                    greeting += data
        except OSError as error:
            yield _unreachable(subject, host, int(port), error)
        else:
            if greeting[:1] == b"\xff" and greeting[9:] == b"\x7f":
                yield ok(subject, f"{address}: a ZeroMQ publisher")
            else:
                yield fail(subject, f"{address}: does not speak ZeroMQ", "check the port of the feed")
