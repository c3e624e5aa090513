"""Nodes, and the proxies of etc/ in front of them, on free ports of the loopback interface."""

import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path

from tests.integration.conftest import TWISTD, becomes_true
from tests.ports import free_port

ETC = Path(__file__).parents[2] / "etc"
STOP = "57330430"
NAME = "departures.example"


def is_installed(program: str) -> bool:
    """Return whether a program is installed."""
    return shutil.which(program) is not None


class Node:
    """A govi-cache with the demo's source, which listens on its own address and the ports of all nodes.

    endpoint: before its tcp endpoint; haproxy: expects the PROXY protocol.
    """

    def __init__(self, directory: Path, number: int, port: int, admin: int, endpoint: str = "") -> None:
        self.address = f"127.0.0.{number}"
        self.port = port
        self.admin = admin
        self.statistics = directory / f"statistics{number}.log"
        self._log = (directory / f"node{number}.log").open("a")
        self._directory = directory
        config = directory / "govi-cache.toml"
        config.write_text('[access]\nproxies = ["127.0.0.0/8"]\n')
        self._arguments = [
            "govi-cache", "--config", str(config), "--source", "demo", "--statistics", str(self.statistics),
            "--listen", f"{endpoint}tcp:{port}:interface={self.address}",
            "--admin", f"tcp:{admin}:interface={self.address}",
            "--callback", f"tcp:{free_port()}:interface=127.0.0.1",
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile=", *self._arguments]
        self.process = subprocess.Popen(command, cwd=self._directory, stdout=self._log, stderr=self._log)

    def is_ready(self) -> bool:
        """Return whether its /ready is 200."""
        connection = HTTPConnection(self.address, self.admin, timeout=13)
        with suppress(OSError), closing(connection):
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        return False

    def wait(self) -> None:
        """Wait until it is ready."""
        assert becomes_true(self.is_ready, 60)

    def stop(self) -> None:
        """Stop it with SIGTERM, and wait for its end."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def close(self) -> None:
        """Kill it if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._log.close()


class Client:
    """A client of a proxy over TLS. address: its source address."""

    def __init__(self, port: int, certificate: Path, address: str = "127.0.0.1") -> None:
        context = ssl.create_default_context(cafile=str(certificate))
        self.connection = HTTPSConnection("127.0.0.1", port, timeout=30, context=context, source_address=(address, 0))
        # HTTPSConnection verifies the name that it connects to.
        self.connection._create_connection = self._connect  # type: ignore[attr-defined]
        self.connection.host = NAME
        self._port = port
        self._response: HTTPResponse | None = None

    def _connect(self, target: tuple[str, int], *more: object) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), *more)  # type: ignore[arg-type]

    def get(self, path: str, **fields: str) -> HTTPResponse:
        """Return a response whose body was not read."""
        names = {name.replace("_", "-"): value for name, value in fields.items()}
        self.connection.request("GET", path, headers=names)
        self._response = self.connection.getresponse()
        return self._response

    def body(self, path: str, **fields: str) -> tuple[int, bytes]:
        """Return the status and the body of a response."""
        response = self.get(path, **fields)
        return response.status, response.read()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
        if self._response is not None:
            self._response.close()


def read_event(stream: HTTPResponse) -> dict[str, str]:
    """Return the fields of the next event of a stream, empty if it has ended."""
    fields: dict[str, str] = {}
    while line := stream.readline().decode():
        if line == "\n" and "event" in fields:
            return fields
        name, _, value = line.rstrip("\n").partition(": ")
        if name:
            fields[name.rstrip(":")] = value
    return {}


def make_certificate(directory: Path) -> None:
    """Write chain.pem, key.pem and haproxy.pem."""
    key, chain = directory / "key.pem", directory / "chain.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={NAME}",
         "-addext", f"subjectAltName=DNS:{NAME},DNS:localhost", "-keyout", key, "-out", chain],
        check=True, capture_output=True,
    )  # fmt: skip
    (directory / "haproxy.pem").write_bytes(chain.read_bytes() + key.read_bytes())


Command = list[str]


def haproxy(directory: Path, port: int, node_port: int, admin_port: int) -> Command:
    """Return the command of haproxy with etc/haproxy.cfg."""
    text = (ETC / "haproxy.cfg").read_text()
    text = re.sub(r"^ *bind (:::.*|:80)\n", "", text, flags=re.MULTILINE).replace(":443", f"127.0.0.1:{port}")
    text = text.replace("10.0.0.", "127.0.0.").replace(":8080", f":{node_port}").replace("8081", f"{admin_port}")
    text = text.replace("/dev/log", "stdout format raw")
    path = directory / "haproxy.cfg"
    path.write_text(text.replace("/etc/govi-cache", str(directory)))
    return ["haproxy", "-db", "-f", str(path)]


def nginx(directory: Path, port: int, node_port: int, admin_port: int) -> Command:
    """Return the command of nginx with etc/nginx.conf."""
    return _nginx(
        directory, port, (ETC / "nginx.conf").read_text().replace("127.0.0.1:8080", f"127.0.0.11:{node_port}")
    )


def nginx_nodes(directory: Path, port: int, node_port: int, admin_port: int) -> Command:
    """Return the command of nginx with etc/nginx.conf and the upstream of etc/nginx-nodes.inc."""
    nodes = (ETC / "nginx-nodes.inc").read_text().replace("10.0.0.", "127.0.0.").replace(":8080", f":{node_port}")
    text = (ETC / "nginx.conf").read_text()
    return _nginx(directory, port, re.sub(r"upstream govi-cache \{.*?\n\}\n", lambda _: nodes, text, flags=re.DOTALL))


def _nginx(directory: Path, port: int, text: str) -> Command:
    text = re.sub(r"^ *listen (\[::\].*|80);\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"listen +443", f"listen 127.0.0.1:{port}", text)
    # The server of port 80 would listen there without a "listen" of its own.
    text = re.sub(r"server \{\n *return 308.*?\n\}\n", "", text, flags=re.DOTALL)
    temporary = "".join(
        f"{name}_temp_path {directory}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = directory / "nginx.conf"
    path.write_text(
        f"pid {directory}/nginx.pid; daemon off; error_log stderr; events {{}} http {{ access_log off; {temporary}"
        + text.replace("/etc/govi-cache", str(directory))
        + "}\n"
    )
    return ["nginx", "-c", str(path)]


def caddy(directory: Path, port: int, node_port: int, admin_port: int) -> Command:
    """Return the command of Caddy with etc/Caddyfile."""
    text = (ETC / "Caddyfile").read_text().replace("127.0.0.1:8080", f"127.0.0.11:{node_port}")
    text = text.replace("/etc/govi-cache", str(directory)).replace(f"{NAME} {{", f"{NAME}:{port} {{")
    path = directory / "Caddyfile"
    path.write_text(
        f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system {directory}/caddy\n}}\n{text}"
    )
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(path)]


def apache(directory: Path, port: int, node_port: int, admin_port: int) -> Command:
    """Return the command of Apache with etc/apache.conf."""
    text = (ETC / "apache.conf").read_text().replace("127.0.0.1:8080", f"127.0.0.11:{node_port}")
    text = text.replace("/etc/govi-cache", str(directory)).replace("*:443", f"127.0.0.1:{port}")
    modules = ("mpm_event", "authz_core", "headers", "http2", "proxy", "proxy_http", "socache_shmcb", "ssl")
    loaded = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in modules)
    path = directory / "apache2.conf"
    path.write_text(
        f"ServerRoot {directory}\nPidFile {directory}/apache.pid\nErrorLog /dev/stderr\nServerName {NAME}\n"
        f"Listen 127.0.0.1:{port}\nDefaultRuntimeDir {directory}\n{loaded}"
        "User www-data\nGroup www-data\n" + text
    )
    return ["apache2", "-DFOREGROUND", "-f", str(path)]


PROXIES: dict[str, tuple[Callable[[Path, int, int, int], Command], str, int, str]] = {
    "haproxy": (haproxy, "haproxy", 3, "haproxy:"),
    "nginx": (nginx, "nginx", 1, ""),
    "nginx-nodes": (nginx_nodes, "nginx", 3, ""),
    "caddy": (caddy, "caddy", 1, ""),
    "apache": (apache, "apache2", 1, ""),
}
"""By name: the command, its program, the number of nodes, and what their endpoints begin with."""


class Site:
    """A proxy and its nodes."""

    def __init__(self, nodes: list[Node], port: int, directory: Path) -> None:
        self.nodes = nodes
        self.port = port
        self._directory = directory
        self._clients: list[Client] = []

    def client(self, address: str = "127.0.0.1") -> Client:
        """Return a client."""
        self._clients.append(Client(self.port, self._directory / "chain.pem", address))
        return self._clients[-1]

    def status(self, path: str) -> int:
        """Return the status of a response over a new connection, 0 for none."""
        client = Client(self.port, self._directory / "chain.pem")
        with suppress(OSError), closing(client):
            return client.body(path)[0]
        return 0

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            client.close()


@contextmanager
def running_site(name: str, directory: Path) -> Iterator[Site]:
    """Start a proxy of PROXIES and its nodes; yield them when boards are served, and end them afterwards."""
    command, _, count, endpoint = PROXIES[name]
    make_certificate(directory)
    port, node_port, admin_port = free_port(), free_port(), free_port()
    nodes = [Node(directory, 11 + number, node_port, admin_port, endpoint) for number in range(count)]
    process = None
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait()
        with (directory / "proxy.log").open("w") as log:
            process = subprocess.Popen(
                command(directory, port, node_port, admin_port), cwd=directory, stdout=log, stderr=log
            )
        site = Site(nodes, port, directory)
        assert becomes_true(lambda: site.status(f"/tpc/{STOP}") == 200, 30), (directory / "proxy.log").read_text()
        with closing(site):
            yield site
    finally:
        if process is not None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        for node in nodes:
            node.close()
