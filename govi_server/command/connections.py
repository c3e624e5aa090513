"""Examinations of ``govi-cache doctor``: whether gateways, the feed, planning and the engine can be reached."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.x509 import load_der_x509_certificate

from govi_server.command.certificates import expiry
from govi_server.command.findings import Finding, fail, ok, warn
from govi_server.http.addresses import Address, parse_ip
from govi_server.operations.callback_reach import find_obstacle, gateway_host, is_default_gateway
from govi_server.settings import Config
from govi_server.sharing.address import parse_engine_url

TIMEOUT_SECONDS = 5.0
"""Time for a connection, and for a greeting."""

GREETING_BYTES = 10
"""The signature of a ZMTP greeting: 0xFF, eight bytes, 0x7F (ZMTP 3.1, RFC 37 of ZeroMQ)."""


def check_gateways(config: Config, now: datetime) -> Iterator[Finding]:
    """Examine whether gateways accept connections, their certificates, and whether callbacks can arrive.

    Sends them no request.
    """
    for name, module in config.modules.items():
        if module.source == "govi":
            subject = f"modules.{name}.gateway_url"
            if is_default_gateway(module):
                advice = "set gateway_url to that of your gateway, unless you have a subscription there"
                yield warn(subject, f"{module.gateway_url}: the default, GOVI's own gateway", advice)
            yield _check_url(subject, module.gateway_url, now, fail)
            addresses = _addresses(gateway_host(module.gateway_url))
            if obstacle := find_obstacle(module, addresses):
                yield warn(f"modules.{name}.{obstacle.setting}", obstacle.text, obstacle.advice)


def _addresses(host: str) -> list[Address]:
    """Return the addresses of a host; [] if it has none, of which _check_url() informs."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [parse_ip(str(address[0])) for *_, address in found]


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
                greeting = _receive(sock, GREETING_BYTES)
        except OSError as error:
            yield _unreachable(subject, host, int(port), error, fail)
        else:
            if greeting[:1] == b"\xff" and greeting[9:] == b"\x7f":
                yield ok(subject, f"{address}: a ZeroMQ publisher")
            else:
                yield fail(subject, f"{address}: does not speak ZeroMQ", "check the port of the feed")


def check_planning(config: Config, now: datetime) -> Iterator[Finding]:
    """Examine whether the publisher of GTFS accepts connections, or the file exists. Sends no request."""
    gtfs = config.feed.gtfs
    if not (config.is_live and gtfs):
        return
    # With the feed, there are boards without GTFS; names and planning come at night.
    level = warn if config.feed.addresses else fail
    if "://" in gtfs:
        yield _check_url("feed.gtfs", gtfs, now, level)
    elif Path(gtfs).exists():
        yield ok("feed.gtfs", f"{gtfs}: exists")
    else:
        yield level("feed.gtfs", f"{gtfs}: no such file or directory", "correct the path, or set feed.gtfs = ''")


def check_engine(config: Config) -> Iterator[Finding]:
    """Examine whether an engine of shared boards accepts connections and, without TLS, responds as one."""
    if not config.share.url:
        return
    url = parse_engine_url(config.share.url)
    for host, port in url.hosts:
        try:
            sock = socket.create_connection((host, port), TIMEOUT_SECONDS)
        except OSError as error:
            yield _unreachable("share.url", host, port, error, fail)
        else:
            with closing(sock):
                yield _check_reply(sock, f"{host}:{port}", url.is_tls)
    if url.path:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TIMEOUT_SECONDS)
            try:
                sock.connect(url.path)
            except OSError as error:
                advice = "correct the path, or let the user of the server use the socket"
                yield fail("share.url", f"{url.path}: {error.strerror}", advice)
            else:
                yield _check_reply(sock, url.path, is_tls=False)


Level = Callable[[str, str, str], Finding]
"""fail or warn."""


def _check_reply(sock: socket.socket, name: str, is_tls: bool) -> Finding:
    """Examine whether an engine replies to PING, with PONG or with an error such as NOAUTH (RESP)."""
    if is_tls:
        return ok("share.url", f"{name} accepts connections")
    try:
        sock.sendall(b"PING\r\n")
        reply = _receive(sock, 5)
    except OSError:
        reply = b""
    if reply == b"+PONG" or reply[:1] == b"-":
        return ok("share.url", f"{name}: an engine")
    return fail("share.url", f"{name}: does not respond as Valkey or Redis", "check the port of the engine")


def _receive(sock: socket.socket, size: int) -> bytes:
    """Return so many bytes, or those until the end or the timeout."""
    data = b""
    try:
        while len(data) < size and (more := sock.recv(size - len(data))):
            data += more
    except TimeoutError:
        pass
    return data


def _check_url(subject: str, text: str, now: datetime, level: Level) -> Finding:
    """Examine whether the server of a URL accepts connections, and its certificate."""
    url = urlsplit(text)
    host, is_tls = url.hostname or "", url.scheme == "https"
    port = url.port or (443 if is_tls else 80)
    try:
        with socket.create_connection((host, port), TIMEOUT_SECONDS) as sock:
            if is_tls:
                return _check_tls(subject, sock, host, port, now, level)
            return ok(subject, f"{host}:{port} accepts connections")
    except OSError as error:
        return _unreachable(subject, host, port, error, level)


def _check_tls(subject: str, sock: socket.socket, host: str, port: int, now: datetime, level: Level) -> Finding:
    try:
        with ssl.create_default_context().wrap_socket(sock, server_hostname=host) as tls:
            certificate = tls.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        advice = "ask the operator of the server for a valid certificate; the program rejects this one as well"
        return level(subject, f"certificate of {host}: {error.verify_message}", advice)
    except ssl.SSLError as error:
        reason = (error.reason or "no reason").lower().replace("_", " ")
        return level(
            subject, f"{host}:{port}: no TLS ({reason})", "check the port, or whether it is an http: address"
        )
    assert certificate is not None
    return expiry(subject, load_der_x509_certificate(certificate), f"certificate of {host}", now)


def _unreachable(subject: str, host: str, port: int, error: OSError, level: Level) -> Finding:
    if isinstance(error, socket.gaierror):
        return level(
            subject, f"{host}: the name cannot be resolved ({error.strerror})", "check the name, and the DNS"
        )
    reason = "no response" if isinstance(error, TimeoutError) else error.strerror or str(error)
    return level(subject, f"{host}:{port}: {reason}", "check the address, and firewalls between here and there")
