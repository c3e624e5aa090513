"""The URL of an engine: its addresses, and how to log in."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from OpenSSL import crypto
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS, trustRootFromCertificates

CONNECT_TIMEOUT = 2.0
"""Seconds to connect, and as many to log in: a node has several addresses to try."""

DEFAULT_PORT = 6379

MAX_DATABASE = 10_000

_TLS = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
"""Whether a scheme means TLS."""

_PEM_END = b"-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class EngineURL:
    """A parsed URL. Its addresses are those of one engine and of its replicas, of which one is in use at a time."""

    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    """Of a UNIX socket, instead of hosts."""
    is_tls: bool = False
    user: str = "default"
    password: str = field(default="", repr=False)
    database: int = 0


def parse_engine_url(text: str) -> EngineURL:
    """Parse the URL of an engine. Raises ValueError, whose message does not contain the password.

    ``redis://[[user]:password@]host[:port][,host[:port]]...[/database]``, with rediss for TLS (or valkey and
    valkeys), or ``unix://[[user]:password@]/path[?db=database]``. Special characters in the password are
    percent-encoded.
    """
    try:
        url = urlsplit(text)
        login, _, netloc = url.netloc.rpartition("@")
        user, _, password = login.partition(":")
        names = unquote(user) or "default", unquote(password)
        if url.scheme == "unix":
            database = parse_qs(url.query, strict_parsing=True)["db"][-1] if url.query else ""
            if netloc or len(url.path) < 2 or url.fragment:
                raise ValueError
            return EngineURL((), unquote(url.path), False, *names, _database(database))
        if url.query or url.fragment or url.scheme not in _TLS:
            raise ValueError
        hosts = tuple(_host(urlsplit(f"//{host}")) for host in netloc.split(","))
        return EngineURL(hosts, "", _TLS[url.scheme], *names, _database(url.path.removeprefix("/")))
    except (ValueError, KeyError):
        expected = "redis://:password@host:6379/0, rediss://host or unix:///path"
        raise ValueError(f"invalid URL (expected one such as {expected})") from None


def _host(url: SplitResult) -> tuple[str, int]:
    if not url.hostname or url.path or url.port == 0:
        raise ValueError
    return url.hostname, url.port or DEFAULT_PORT


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and int(text) <= MAX_DATABASE):
        raise ValueError
    return int(text or "0")


def engine_endpoints(
    reactor: Any, url: EngineURL, authorities: str = "", certificate: str = ""
) -> dict[str, IStreamClientEndpoint]:
    """Return the endpoints of an engine by their names in the log.

    authorities: a PEM file of the certificate authorities, instead of those of the system. certificate: a PEM file of
    this client's certificate and private key. Both are for TLS. Raises OSError or ValueError.
    """
    if url.path:
        return {url.path: UNIXClientEndpoint(reactor, url.path, CONNECT_TIMEOUT)}
    try:
        roots = trustRootFromCertificates(_read_certificates(authorities)) if authorities else None
        client = PrivateCertificate.loadPEM(_read(certificate)) if certificate else None
    except crypto.Error as error:
        raise ValueError(f"not a certificate in PEM format: {error}") from None
    endpoints: dict[str, IStreamClientEndpoint] = {}
    for host, port in url.hosts:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, host, port, CONNECT_TIMEOUT)
        if url.is_tls:
            endpoint = wrapClientTLS(optionsForClientTLS(host, trustRoot=roots, clientCertificate=client), endpoint)
        endpoints[f"[{host}]:{port}" if ":" in host else f"{host}:{port}"] = endpoint
    return endpoints


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _read_certificates(path: str) -> list[Certificate]:
    *certificates, _ = _read(path).split(_PEM_END)
    if not certificates:
        raise ValueError(f"no certificate in {path}")
    return [Certificate.loadPEM(text + _PEM_END) for text in certificates]
