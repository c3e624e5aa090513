"""The govi-cache that listens on a port of this machine, from proc(5)."""

import os
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from govi_server.http.addresses import Address, parse_ip

PROGRAM = "govi-cache"
"""In the command line of each server, before its options: twistd's subcommand, or the file of the command."""

LISTENING = "0A"
"""TCP_LISTEN in /proc/net/tcp."""


class RunningServer(NamedTuple):
    """A process. config: the path of its configuration file, absolute unless this user may not see its
    directory; None without one.
    """

    pid: int
    config: str | None


def find_server(host: str, port: int, is_own: bool) -> RunningServer | None:
    """Return the govi-cache that listens on a port; None if there is none, or this user may not see it.

    host: "" for any address. is_own: whether it is known that a govi-cache does. Then one whose open files this user
    may not see is found if it is the only one of the user that opened the port.
    """
    wanted = parse_ip(host) if host and host != "localhost" else None
    sockets = {
        f"socket:[{inode}]": user
        for address, user, inode in _listening(port)
        if wanted is None or wanted.is_unspecified or address.is_unspecified or address == wanted
    }
    hidden = []
    for directory in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            arguments = os.fsdecode((directory / "cmdline").read_bytes()).split("\0")
            names = list(map(os.path.basename, arguments))
            if PROGRAM not in names or int(directory.name) == os.getpid():
                continue
            path = _config(arguments[names.index(PROGRAM) + 1 :])
            user = directory.stat().st_uid
        except OSError:  # it has ended
            continue
        try:
            if sockets.keys() & set(_open_files(directory)):
                absolute = path and os.path.realpath(os.path.join(os.readlink(directory / "cwd"), path))
                return RunningServer(int(directory.name), absolute)
        except OSError:  # of another user, or in namespaces of its own
            if user in sockets.values():
                hidden.append(RunningServer(int(directory.name), path))
    return hidden[0] if is_own and len(hidden) == 1 else None


def _listening(port: int) -> Iterator[tuple[Address, int, str]]:
    """Yield the addresses, user ids and inodes of the sockets that listen on a port."""
    for table in ("tcp", "tcp6"):
        try:
            rows = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:  # without IPv6, or not Linux
            continue
        for row in rows:
            _, local, _, state, _, _, _, user, _, inode, *_ = row.split()
            address, _, number = local.partition(":")
            if state == LISTENING and int(number, 16) == port:
                words = (int(address[i : i + 8], 16) for i in range(0, len(address), 8))
                yield ip_address(b"".join(struct.pack("=I", word) for word in words)), int(user), inode


def _open_files(directory: Path) -> Iterator[str]:
    for file in (directory / "fd").iterdir():
        try:
            yield os.readlink(file)
        except FileNotFoundError:  # closed since
            continue


def _config(arguments: list[str]) -> str | None:
    """Return the configuration file of the program's arguments."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument in ("--config", "-c"):
            return following
        if argument.startswith("--config="):
            return argument.removeprefix("--config=")
    return None
