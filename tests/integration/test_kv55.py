"""Tests over real sockets with a client, the server, and a gateway with callbacks."""

import json
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from lxml import etree
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress
from twisted.internet.threads import deferToThread
from twisted.web.client import HTTPConnectionPool

from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.sockets import poller
from govi_server.sockets.listener import server_service
from tests.integration.conftest import GOVI_TRIP, Start, compressed, reactor, request, sleep, until
from tests.ports import free_port

QUICK = "[gateway]\nanswer = 1.0\n"


def trip_elements(document: bytes) -> list[tuple[str, str | None]]:
    return [(str(element.tag), element.text) for element in etree.fromstring(document).iterfind(".//Trip/*")]


@pytest.mark.parametrize("encode", [bytes, compressed])
@pytest_twisted.ensureDeferred
async def test_miss_and_hit(start: Start, govi_response: bytes, encode: Callable[[bytes], bytes]) -> None:
    """The gateway's response, plain or gzip, is served completely, and to the next client from the cache."""
    running = start()
    running.govi.responses = [encode(govi_response)]
    first = await running.get("031102")
    assert first.code == 200
    assert first.header("content-type") == "text/xml; charset=utf-8"
    expected = [(str(element.tag), element.text) for element in etree.fromstring(GOVI_TRIP.strip())]
    assert trip_elements(first.body) == expected
    tags = [element.tag for element in etree.fromstring(first.body)]
    assert tags == ["SubscriberID", "Version", "DossierName", "SendTimestamp", "License", "Request"]
    second = await running.get("031102")
    assert second.body == first.body
    assert (second.header("cache-status") or "").startswith("govi-cache; hit; ttl=")
    (gateway_request,) = running.govi.requests
    assert etree.fromstring(gateway_request).findtext("Request/TimingPoint/TimingPointCode") == "031102"
    (callback,) = running.govi.callbacks
    assert (callback.code, etree.fromstring(callback.body).findtext("ResponseCode")) == (200, "OK")


@pytest_twisted.ensureDeferred
async def test_requests_are_collapsed(start: Start) -> None:
    """Two hundred requests for an uncached stop share one gateway request and its response."""
    running = start()
    responses = await gatherResults([Deferred.fromCoroutine(running.get("031102")) for _ in range(200)])
    assert {response.code for response in responses} == {200}
    assert len({response.body for response in responses}) == 1
    assert len(running.govi.requests) == 1


@pytest.mark.parametrize(
    ("responses", "code", "status"),
    [
        ([], 200, 504),  # silent
        ([], 500, 504),  # rejects the request
        ([b"nonsense"], 200, 502),
        ([b"<DRIS_55><TimingPointCode>031102</TimingPointCode>"], 200, 502),
        ([b"\x1f\x8bnonsense"], 200, 502),
    ],
)
@pytest_twisted.ensureDeferred
async def test_failing_gateway_causes_504_or_502(
    start: Start, govi_response: bytes, responses: list[bytes], code: int, status: int
) -> None:
    """A failing gateway causes a 504 or a 502 with an Error; the next request is sent to it again."""
    running = start(QUICK)
    running.govi.responses, running.govi.code = responses, code
    failed = await running.get("031102")
    assert failed.code == status
    assert etree.fromstring(failed.body).findtext("Request/Error")
    assert failed.header("retry-after") == "10"
    running.govi.responses, running.govi.code = [govi_response], 200
    assert (await running.get("031102")).code == 200
    assert len(running.govi.requests) == 2


@pytest_twisted.ensureDeferred
async def test_unreachable_gateway_causes_504(start: Start) -> None:
    """A gateway that refuses connections causes a 504."""
    running = start("", "--gateway-url", "http://127.0.0.1:1/")
    assert (await running.get("031102")).code == 504


@pytest_twisted.ensureDeferred
async def test_unsolicited_response_is_rejected(start: Start, govi_response: bytes) -> None:
    """An unsolicited response of the gateway is rejected, and not served."""
    running = start(QUICK)
    running.govi.responses = [govi_response.replace(b"031102", b"031103")]
    assert (await running.get("031102")).code == 504
    assert running.govi.callbacks[0].code == 403
    running.govi.responses = []
    assert (await running.get("031103")).code == 504


@pytest_twisted.ensureDeferred
async def test_second_response_is_ignored(start: Start, govi_response: bytes) -> None:
    """If the gateway responds twice, the first response is served; the second is accepted and ignored."""
    running = start()
    running.govi.responses = [govi_response, govi_response.replace(b"24:33:10", b"24:44:44")]
    assert b"24:33:10" in (await running.get("031102")).body
    await until(lambda: len(running.govi.callbacks) == 2)
    assert running.govi.callbacks[1].code == 200
    assert b"24:33:10" in (await running.get("031102")).body


@pytest_twisted.ensureDeferred
async def test_late_response_is_cached(start: Start, govi_response: bytes) -> None:
    """A gateway response after the deadline of its request is served to the next client."""
    running = start(QUICK)
    running.govi.responses = []
    assert (await running.get("031102")).code == 504
    late = await request("POST", running.govi.callback_url, govi_response)
    assert late.code == 200
    hit = await running.get("031102")
    assert (hit.header("cache-status") or "").startswith("govi-cache; hit; ttl=")
    assert len(running.govi.requests) == 1


@pytest_twisted.ensureDeferred
async def test_request_over_closed_connection_is_repeated(start: Start, govi_response: bytes) -> None:
    """A request over a persistent connection that the gateway has closed is repeated over a new one."""
    running = start(QUICK)
    assert (await running.get("031102")).code == 200
    running.govi.closes_connection = True
    running.govi.responses = [govi_response.replace(b"031102", b"031103")]
    assert (await running.get("031103")).code == 200
    assert len(running.govi.requests) == 3


def exchange(port: int, data: bytes, seconds: float = 10) -> bytes:
    """Send data; return all data received until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), seconds) as client:
        client.sendall(data)
        received = b""
        while more := client.recv(65536):
            received += more
        return received


@pytest_twisted.ensureDeferred
async def test_silent_client_is_disconnected(start: Start) -> None:
    """A client that sends nothing gets the 406 at its deadline, and is disconnected."""
    running = start("[limits]\nconnection = 0.5\n[gateway]\nanswer = 0.4\n")
    received = await deferToThread(exchange, running.port, b"")
    assert received.startswith(b"HTTP/1.1 406 Gateway timeout\r\n")


@pytest_twisted.ensureDeferred
async def test_half_closed_connection_gets_all_responses(start: Start) -> None:
    """A client that closes its side after its requests gets all responses."""
    running = start()

    def converse() -> bytes:
        with socket.create_connection(("127.0.0.1", running.port), 10) as client:
            client.sendall(b"GET /kv55/031102 HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            received = b""
            while more := client.recv(65536):
                received += more
            return received

    received = await deferToThread(converse)
    assert received.count(b"HTTP/1.1 200 Ok") == 1
    assert received.count(b"HTTP/1.1 404 Not Found") == 1


@pytest_twisted.ensureDeferred
async def test_connection_close_closes_both_sides(start: Start) -> None:
    """With Connection: close the response is complete, and the server then closes both sides."""
    running = start()
    await running.get("031102")

    def converse() -> bytes:
        with socket.create_connection(("127.0.0.1", running.port), 10) as client:
            client.sendall(b"GET /kv55/031102 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            received = b""
            while more := client.recv(65536):
                received += more
            with pytest.raises(ConnectionError):  # the server does not linger
                all(client.send(b"x") for _ in range(100))
            return received

    for _ in range(2):  # on the slow path, and on the fast path
        head, _, body = (await deferToThread(converse)).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
        assert body.endswith(b"</DRIS_55>\n")


@pytest.mark.parametrize("has_epoll", [True, False])
@pytest_twisted.ensureDeferred
async def test_nagle_algorithm_is_off(has_epoll: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP_NODELAY is set, with and without epoll: a response does not wait for the previous acknowledgement."""
    monkeypatch.setattr(poller, "IS_AVAILABLE", has_epoll)
    modules: dict[str, object] = {}
    server = Server("", 0, RequestHandler, clock=reactor, find_module=modules.__getitem__)
    addresses: list[IAddress] = []
    any_port = ["tcp:0:interface=127.0.0.1"]
    listener = server_service(reactor, "--listen", any_port, server, lambda address, _: addresses.append(address))
    listener.privilegedStartService()
    listener.startService()
    try:
        (address,) = addresses
        assert isinstance(address, IPv4Address)
        with socket.create_connection((address.host, address.port), 10):
            await until(lambda: server.connections)
            (connection,) = server.connections.values()
            assert connection.sock.getTcpNoDelay()
            assert (connection.sock in reactor.getReaders()) is not has_epoll
        await until(lambda: not server.connections)
    finally:
        await listener.stopService()


@pytest_twisted.ensureDeferred
async def test_rejection_survives_unread_bytes(start: Start) -> None:
    """A client that is still sending when its request is rejected receives the response."""
    running = start()
    head = b"POST /kv55/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"

    def converse() -> bytes:
        with socket.create_connection(("127.0.0.1", running.port), 10) as client:
            client.sendall(head + b"x" * 3_000_000)
            return client.recv(65536)

    assert (await deferToThread(converse)).startswith(b"HTTP/1.1 413 ")


@pytest_twisted.ensureDeferred
async def test_client_that_does_not_read_is_disconnected(start: Start) -> None:
    """A client that sends thousands of requests and reads no response is paused, then disconnected."""
    running = start("[limits]\nconnection = 0.5\n[gateway]\nanswer = 0.4\n")
    await running.get("031102")
    sent = 0
    with socket.create_connection(("127.0.0.1", running.port), 10) as client:
        client.setblocking(False)
        requests = b"GET /kv55/031102 HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
        is_disconnected = False
        for _ in range(1000):
            try:
                sent += client.send(requests)
            except BlockingIOError:
                await sleep(0.01)
            except ConnectionError:
                is_disconnected = True
                break
    assert is_disconnected
    # The buffers of two sockets, not all 39 MB
    assert sent < 30_000_000


@pytest_twisted.ensureDeferred
async def test_connection_is_in_the_statistics_log(start: Start) -> None:
    """After the end of a connection the statistics log has its requests, with the six phases of a miss."""
    running = start()
    pool = HTTPConnectionPool(reactor)
    await request("GET", running.url("031102"), pool=pool)
    await request("GET", running.url("031102"), pool=pool)
    await pool.closeCachedConnections()
    await until(lambda: running.statistics.read_text().count("\n") == 1)
    connection = json.loads(running.statistics.read_text())
    assert connection["client"] == "127.0.0.0/24"
    assert connection["end"] == "client"
    miss, hit = connection["requests"]
    assert list(miss["phases"]) == ["receive", "parse", "lookup", "wait", "render", "send"]
    assert miss["phases"]["wait"] >= 50
    assert (miss["cache"], hit["cache"], hit["path"]) == ("miss", "hit", "/kv55/031102")


@pytest_twisted.ensureDeferred
async def test_server_listens_on_unix_socket(start: Start, tmp_path: Path) -> None:
    """The server can listen on a unix socket."""
    path = tmp_path / "http"
    start("", "--listen", f"unix:{path}")

    def converse() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(b"GET /nothing HTTP/1.0\r\n\r\n")
            received = b""
            while more := client.recv(65536):
                received += more
            return received

    assert (await deferToThread(converse)).startswith(b"HTTP/1.1 404 Not Found")


@pytest_twisted.ensureDeferred
async def test_client_address_behind_haproxy(start: Start) -> None:
    """Behind haproxy the client's address is that of the PROXY protocol."""
    port = free_port()
    running = start("", "--listen", f"haproxy:tcp:{port}:interface=127.0.0.1")
    data = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 80\r\nGET /nothing HTTP/1.0\r\n\r\n"
    assert (await deferToThread(exchange, port, data)).startswith(b"HTTP/1.1 404 Not Found")
    await until(lambda: running.statistics.read_text().count("\n") == 1)
    assert json.loads(running.statistics.read_text())["client"] == "203.0.113.0/24"


@pytest_twisted.ensureDeferred
async def test_callback_behind_haproxy(start: Start, govi_response: bytes) -> None:
    """Behind haproxy, callbacks are accepted only from the allowed networks."""
    port = free_port()
    running = start(QUICK, "--callback", f"haproxy:tcp:{port}:interface=127.0.0.1")
    head = b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(govi_response)
    running.govi.responses = []
    for client, status in [(b"203.0.113.9", b"403"), (b"nonsense", b""), (b"127.0.0.1", b"200")]:
        pending = Deferred.fromCoroutine(running.get("031102"))
        await until(lambda: len(running.govi.requests))
        response = await deferToThread(
            exchange, port, b"PROXY TCP4 %b 192.0.2.1 4711 80\r\n" % client + head + govi_response
        )
        assert response.startswith(b"HTTP/1.1 " + status if status else b"")
        assert bool(response) == bool(status)  # after an invalid header the connection is closed
        assert (await pending).code == (200 if status == b"200" else 504)
        running.govi.requests.clear()


@pytest_twisted.ensureDeferred
async def test_incomplete_acknowledgement_is_accepted(start: Start, govi_response: bytes) -> None:
    """An acknowledgement with an incomplete body is accepted by its status."""
    running = start()
    running.govi.is_incomplete = True
    assert (await running.get("031102")).code == 200


@pytest_twisted.ensureDeferred
async def test_server_responds_over_tls(start: Start, tmp_path: Path) -> None:
    """The server responds over TLS with and without ALPN."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make_certificate(key, certificate)
    port = free_port()
    start("", "--listen", f"ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={certificate}")
    context = ssl.create_default_context(cafile=str(certificate))

    def converse(protocols: list[str]) -> tuple[bytes, str | None]:
        context.set_alpn_protocols(protocols)
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(b"GET /nothing HTTP/1.0\r\n\r\n")
            received = b""
            while more := client.recv(65536):
                received += more
            return received, client.selected_alpn_protocol()

    for protocols, selected in [(["h2", "http/1.1"], "http/1.1"), ([], None)]:
        received, negotiated = await deferToThread(converse, protocols)
        assert received.startswith(b"HTTP/1.1 404 Not Found")
        assert received.endswith(b"No such path; see /docs\n")
        assert negotiated == selected


def make_certificate(key: Path, certificate: Path) -> None:
    """Write a key and a self-signed certificate for localhost."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@pytest_twisted.ensureDeferred
async def test_requests_in_flight_are_finished(start: Start) -> None:
    """When the service stops, requests in flight are finished, and the port is closed."""
    running = start()
    pending = Deferred.fromCoroutine(running.get("031102"))
    await until(lambda: running.govi.requests)
    stopped = running.service.stopService()
    assert (await pending).code == 200
    await stopped
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port))
    assert json.loads(running.statistics.read_text())["requests"][0]["status"] == 200
