"""Examinations of ``govi-cache doctor``: ports, clock, open files, files and directories."""

import ctypes
import os
import resource
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL
from pathlib import Path

from govi_server.command.findings import Finding, fail, ok, warn
from govi_server.command.running_server import RunningServer, find_server
from govi_server.settings import Config
from govi_server.settings_loader import setting_key
from govi_server.sockets.endpoint_syntax import parse_endpoint_text

RELEASED = datetime(2026, 1, 1, tzinfo=UTC)
"""A moment before this version was released: an earlier clock is wrong."""

TIME_ERROR = 5
"""What adjtimex(2) returns if the clock is not synchronized."""

TIMEX_BYTES = 512
"""More than the size of struct timex, 208 bytes on 64-bit Linux."""

OTHER_FILES = 1536
"""Open files besides those of clients: callbacks, the program's own, and some in reserve (docs/install.md)."""

OLD_TIMETABLE = timedelta(days=14)
"""Age of the newest file of a timetable directory from which its planning is probably past."""


# Ports


def check_ports(config: Config, path: str | None) -> Iterator[Finding]:
    """Examine whether the program can listen on its endpoints. path: of the configuration."""
    for key, endpoint in config.endpoints:
        subject = setting_key(key)
        kind, arguments = parse_endpoint_text(endpoint)
        if kind in ("tcp", "tcp6", "ssl"):
            yield _check_port(subject, endpoint, arguments, path)
        elif kind == "unix":
            yield _check_unix(subject, Path(arguments.get("address", "")))
        elif kind == "systemd":
            yield ok(subject, f"{endpoint}: given by the socket unit")
        else:
            yield ok(subject, f"{endpoint}: not examined, since another program opens it")


def _check_port(subject: str, endpoint: str, arguments: dict[str, str], path: str | None) -> Finding:
    port = int(arguments["port"])
    host = arguments.get("interface", "")
    family = socket.AF_INET6 if ":" in host or endpoint.startswith("tcp6") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen()
        except OSError as error:
            if error.errno == EADDRINUSE:
                is_own = _is_own(family, host, port)
                server = find_server(host, port, is_own)  # of a port without HTTP, too
                if is_own or server is not None:
                    return _check_running(subject, endpoint, server, path)
            advice = {
                EADDRINUSE: f"stop the program that uses it (ss -ltnp 'sport = :{port}' names it), or choose another",
                EACCES: "ports below 1024 need a privilege: use a socket of systemd, a proxy, or a port above 1023",
                EADDRNOTAVAIL: "use an address of this machine (ip address lists them)",
            }.get(error.errno or 0, "choose another endpoint")
            return fail(subject, f"{endpoint}: {error.strerror}", advice)
    return ok(subject, f"{endpoint}: free")


def _check_running(subject: str, endpoint: str, server: RunningServer | None, path: str | None) -> Finding:
    """Examine whether the govi-cache that has the port is the one of this configuration."""
    if server is None:
        advice = "run this command as root, or as the user of that server, to learn which it is"
        return warn(subject, f"{endpoint}: used by a govi-cache of another user, which is running", advice)
    config = f"configuration {server.config}" if server.config else "without a configuration file"
    text = f"govi-cache, process {server.pid}, {config}"
    if server.config == (path and os.path.realpath(path)):
        return ok(subject, f"{endpoint}: used by {text}")
    return warn(subject, f"{endpoint}: used by another {text}", "stop it, or choose another port")


def _is_own(family: socket.AddressFamily, host: str, port: int) -> bool:
    """Return whether a govi-cache listens on a port, by its Server field."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        try:
            sock.connect((host or "localhost", port))
            sock.sendall(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return b"\r\nserver: govi-cache/" in sock.recv(4096).lower()
        except OSError:
            return False


def _check_unix(subject: str, path: Path) -> Finding:
    if not path.parent.is_dir():
        return fail(subject, f"{path.parent}: no such directory", f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return fail(subject, f"{path.parent}: not writable", "let the user of the server own the directory")
    return ok(subject, f"{path}: its directory is writable")


# Clock


def check_clock(now: datetime) -> Iterator[Finding]:
    """Examine the system's clock, on which every displayed minute depends."""
    advice = "enable time synchronization: timedatectl set-ntp true, or install chrony"
    if now < RELEASED:
        yield fail("clock", f"it is {now:%Y-%m-%d %H:%M} UTC, which is in the past", advice)
        return
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (OSError, AttributeError):  # not Linux
        state = -1
    if state == TIME_ERROR:
        yield warn("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC, but not synchronized", advice)
    elif state < 0:
        yield ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC; whether it is synchronized is unknown")
    else:
        yield ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC, synchronized")


# Open files


def check_open_files(config: Config) -> Iterator[Finding]:
    """Examine the limit of open files, to which the program raises its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = config.access.connections + OTHER_FILES
    text = "unlimited" if hard == resource.RLIM_INFINITY else f"{hard}"
    if hard != resource.RLIM_INFINITY and hard < needed:
        advice = f"raise it to {needed} (LimitNOFILE= of systemd, ulimit -n), or lower access.connections"
        yield warn("open files", f"the limit is {text}: fewer than access.connections fit", advice)
    else:
        yield ok("open files", f"the limit is {text}, {needed} are needed")


# Files and directories


def check_files(config: Config, path: str | None, now: datetime) -> Iterator[Finding]:
    """Examine the files and directories that the settings name."""
    if path is not None:
        yield _check_readable("configuration", Path(path))
    for subject, name in (("statistics.file", config.statistics.file), ("snapshot.file", config.snapshot.file)):
        if name:
            yield _check_writable(subject, Path(name))
    if config.manhole.listen:
        yield _check_readable("manhole.keys", Path(config.manhole.keys))
    if config.feed.timetable and config.is_live:
        yield _check_timetable(Path(config.feed.timetable), now)


def _check_readable(subject: str, path: Path) -> Finding:
    """Examine whether a file is readable by this user, and writable by no other."""
    try:
        with path.open("rb") as file:
            permissions = os.fstat(file.fileno()).st_mode
    except OSError as error:
        return fail(subject, f"{path}: {error.strerror}", "correct the path, or let the user of the server read it")
    if permissions & (stat.S_IWGRP | stat.S_IWOTH):
        return warn(subject, f"{path}: writable by others", f"chmod go-w {path}")
    return ok(subject, f"{path}: readable")


def _check_writable(subject: str, path: Path) -> Finding:
    directory = path.absolute().parent
    if not directory.is_dir():
        return fail(subject, f"{directory}: no such directory", f"mkdir -p {directory}")
    for place in (directory, path):
        if place.exists() and not os.access(place, os.W_OK):
            return fail(subject, f"{place}: not writable by this user", f"let the user of the server own {place}")
    if path.is_dir():
        return fail(subject, f"{path}: is a directory", "name a file in it")
    return ok(subject, f"{path}: writable")


def _check_timetable(path: Path, now: datetime) -> Finding:
    subject = "feed.timetable"
    try:
        files = [file.stat().st_mtime for file in path.iterdir() if file.suffix in (".ctx", ".gz") and file.is_file()]
    except OSError as error:
        return fail(subject, f"{path}: {error.strerror}", "correct the path, or let the user of the server read it")
    if not files:
        return warn(subject, f"{path}: no files (*.ctx, *.gz)", "record a night of KV7: docs/sources.md, Planning")
    newest = datetime.fromtimestamp(max(files), UTC)
    text = f"{path}: {len(files)} files, the newest of {newest:%Y-%m-%d}"
    if now - newest > OLD_TIMETABLE:
        return warn(subject, text, "record a recent night of KV7: docs/sources.md, Planning")
    return ok(subject, text)
