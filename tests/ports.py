"""Ports for programs under test."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

RANGE = range(20_000, 32_000)
"""Outside of the range of outgoing connections."""

_reserved: set[int] = set()
# A locked byte for each port, so that tests in other processes do not take it before its program listens.
_locks = os.open(
    Path(tempfile.gettempdir(), f"govi-cache-test-ports-{os.getuid()}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
)


def free_port() -> int:
    """Return a free port, which no other call returns while this process runs."""
    while True:
        port = random.SystemRandom().choice(RANGE)  # hypothesis seeds the module's functions
        if port in _reserved:
            continue
        try:
            fcntl.lockf(_locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            continue
        _reserved.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
