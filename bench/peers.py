"""The measured servers: govi-cache, and others that serve the same bytes. Loopback only.

Each runs on the first available core; the load runs on the last one.
"""

import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
CORES = sorted(os.sched_getaffinity(0))
SERVER, CLIENT = CORES[0], CORES[-1]
FIRST_PORT = 18500

NGINX = """
user {user}; worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 20000; }}
http {{
    access_log {access_log}; keepalive_requests 100000000; keepalive_timeout 60s; default_type text/xml;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    proxy_cache_path {folder}/cache keys_zone=boards:10m;
    upstream govi {{ server 127.0.0.1:{govi}; keepalive 8; }}
    server {{ listen 127.0.0.1:{port} backlog=1024; {location} }}
}}
"""
PROXY_CACHE = """location / {{
    proxy_pass http://govi; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_cache boards; proxy_cache_valid 200 {valid}; proxy_ignore_headers Cache-Control;
}}"""
BUFFERED_LOG = "access.log combined buffer=64k flush=1s"
"""nginx's access log as it is configured where it is busy."""

VARNISH = """vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{govi}"; }}
sub vcl_backend_response {{ set beresp.ttl = 1h; }}
"""


@dataclass(frozen=True)
class Peer:
    """A server. requires: a program or module; install: the command that installs it."""

    name: str
    requires: str = ""
    install: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether the server can be measured on this machine."""
        return not self.requires or shutil.which(self.requires) is not None or find_spec(self.requires) is not None


ACCESS_LOG = "with its access log"

NGINX_WITH_LOG = Peer(f"nginx proxy_cache {ACCESS_LOG}", "nginx", "apt install nginx-light")
UVICORN = Peer("uvicorn (uvloop, httptools)", "uvicorn", "pip install 'uvicorn[standard]'")

PEERS = (
    Peer("govi-cache"),
    Peer("nginx proxy_cache", "nginx", "apt install nginx-light"),
    Peer("nginx from a file", "nginx", "apt install nginx-light"),
    Peer("varnish", "varnishd", "apt install varnish"),
    Peer("granian", "granian", "pip install granian"),
    UVICORN,
    Peer("uvicorn with its access log, the default", "uvicorn", "pip install 'uvicorn[standard]'"),
    Peer("aiohttp", "aiohttp", "pip install aiohttp"),
    Peer("twisted.web"),
    Peer("twisted.web with its access log, the default"),
    Peer("bare Twisted protocol"),
)


class Running:
    """A running server, with its process and the children of the process."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.port = port
        self.process = process

    def cpu(self) -> float:
        """Return the processor seconds of all processes and threads."""
        return sum(self.processes().values())

    def processes(self) -> dict[int, float]:
        """Return the processor seconds of each process."""
        return {pid: _cpu_seconds(pid) for pid in _descendants(self.process.pid)}

    def memory(self) -> int:
        """Return the resident memory of all processes, in bytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in _descendants(self.process.pid))
        return pages * os.sysconf("SC_PAGE_SIZE")


def _descendants(pid: int) -> Iterator[int]:
    yield pid
    for thread in os.listdir(f"/proc/{pid}/task"):
        for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
            yield from _descendants(int(child))


def _cpu_seconds(pid: int) -> float:
    threads = os.listdir(f"/proc/{pid}/task")
    return sum(int(Path(f"/proc/{pid}/task/{t}/schedstat").read_text().split()[0]) for t in threads) / 1e9


@contextmanager
def running_server(
    name: str, port: int, command: Sequence[str], folder: Path, path: str = "", *, cores: Sequence[int] = (SERVER,)
) -> Iterator[Running]:
    """Run a server in a context; yield it once it responds to a GET of path. Its output goes to a file."""
    with open(folder / f"{name.split()[0]}-{port}.log", "wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, cores)), *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(HERE)},
        )
        try:
            for _ in range(100):
                time.sleep(0.1)
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=15).read()
                    break
                except OSError as error:
                    failed = error
            else:
                raise SystemExit(f"{name} does not respond: {failed}\n{Path(log.name).read_text()}")
            yield Running(name, port, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def govi_cache(
    folder: Path,
    port: int,
    *options: str,
    path: str,
    name: str = "govi-cache",
    twistd: Path | None = None,
    cores: Sequence[int] = (SERVER,),
) -> AbstractContextManager[Running]:
    """Run govi-cache in a context, by default with the demo. twistd: a program to run instead of it."""
    twistd = twistd or Path(sys.executable).with_name("twistd")
    endpoints = [
        f"--listen=tcp:{port}:interface=127.0.0.1",
        f"--admin=tcp:{port + 1}:interface=127.0.0.1",
        f"--callback=tcp:{port + 2}:interface=127.0.0.1",
    ]
    has_source = any(option.startswith(("--source", "--feed", "--timetable", "--gateway-url")) for option in options)
    source = [] if has_source else ["--source=demo"]
    command = [sys.executable, str(twistd), "--nodaemon", "--pidfile=", "govi-cache", *endpoints, *source, *options]
    return running_server(name, port, command, folder, path, cores=cores)


def nginx(name: str, folder: Path, port: int, location: str, govi: int, path: str) -> AbstractContextManager[Running]:
    """Run nginx in a context. location: its configuration of /; govi: the port of govi-cache."""
    access_log = f"{folder / BUFFERED_LOG}" if ACCESS_LOG in name else "off"
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(
            user=getpass.getuser(), folder=folder, port=port, location=location, govi=govi, access_log=access_log
        )
    )
    return running_server(name, port, ["nginx", "-p", str(folder), "-c", str(config)], folder, path)


def uvicorn(name: str, folder: Path, port: int, app: str, path: str) -> AbstractContextManager[Running]:
    """Run uvicorn in a context. app: a module of this directory and its application."""
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--loop", "uvloop", "--http", "httptools", app]
    log = () if ACCESS_LOG in name else ("--no-access-log",)
    return running_server(name, port, [*command, *log], folder, path)


def peer(server: Peer, port: int, govi: int, path: str, folder: Path) -> AbstractContextManager[Running]:
    """Run another server in a context; it serves the response of govi-cache to a path."""
    body = urllib.request.urlopen(f"http://127.0.0.1:{govi}{path}").read()
    directory = Path(tempfile.mkdtemp(dir=folder))
    directory.chmod(0o755)  # varnish reads it as another user
    file = directory / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(body)
    os.environ["BENCH_BODY"] = str(file)
    kind = server.name.split()[0]
    if kind == "nginx":
        location = PROXY_CACHE.format(valid="1h") if "proxy" in server.name else f"location / {{ root {directory}; }}"
        return nginx(server.name, directory, port, location, govi, path)
    if kind == "uvicorn":
        return uvicorn(server.name, directory, port, "constant:app", path)
    if kind == "varnish":
        vcl = directory / "default.vcl"
        vcl.write_text(VARNISH.format(govi=govi))
        command = ["varnishd", "-F", "-n", str(directory / "varnish"), "-a", f"127.0.0.1:{port}", "-f", str(vcl)]
    elif kind == "granian":
        command = [
            sys.executable,
            "-m",
            "granian",
            "--interface",
            "asgi",
            "--port",
            str(port),
            "constant:app",
            "--no-ws",
        ]
    else:
        command = [sys.executable, str(HERE / "constant.py"), server.name, str(port)]
    return running_server(server.name, port, command, directory, path)


def nginx_for_5_seconds(folder: Path, port: int, govi: int) -> AbstractContextManager[Running]:
    """Run nginx in a context: a cache of 5 s, with its access log, in front of govi-cache."""
    name = f"nginx proxy_cache 5 s {ACCESS_LOG}"
    return nginx(name, folder, port, PROXY_CACHE.format(valid="5s"), govi, "/docs")


def uvicorn_with_documents(
    folder: Path, port: int, govi: int, paths: Sequence[str], accept: str
) -> AbstractContextManager[Running]:
    """Run uvicorn in a context, without a log: it serves the responses of govi-cache to these paths from a dict."""
    bodies = {}
    for path in paths:
        request = urllib.request.Request(f"http://127.0.0.1:{govi}{path}", headers={"Accept": accept})
        bodies[path] = urllib.request.urlopen(request).read().decode()
    file = folder / "documents.json"
    file.write_text(json.dumps({"type": accept, "bodies": bodies}))
    os.environ["BENCH_DOCUMENTS"] = str(file)
    return uvicorn("uvicorn, documents in a dict", folder, port, "documents:app", paths[0])
