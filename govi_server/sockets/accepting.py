"""The limit of open files: it is raised at startup, and near it fewer connections are accepted."""

import os
import resource
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.tcp import Port
from twisted.logger import Logger

from govi_server.errors import StartupError
from govi_server.runtime.throttled_warnings import ThrottledWarnings

RESERVED_FILES = 1536
"""Open files besides clients' connections: connections to gateways, callbacks, logs, and connections being closed."""

OWN_FILES = 48
"""Files that are open without any connection: 36 of the demo, and those that are opened for a moment."""

FILES_PER_ENDPOINT = 2
"""Files of an endpoint: its socket, and the poller of its connections."""

MIN_CONNECTIONS = 4
"""Fewer clients are not worth starting for."""

MAX_SPARE_FILES = 128
"""Files that are not used for accepted connections, but left for gateways, logs, snapshots and ZeroMQ, which aborts
the process if it cannot open one; an eighth of a limit below 1,024."""

COUNT_INTERVAL = 1.0
"""Seconds after which open files are counted again; earlier after many accepted connections."""

PAUSE_SECONDS = 1.0
"""Interval at which a connection is accepted, and files are counted, while accepting is paused."""

MAX_ACCEPTED_IN_TURN = 20
"""Connections that a port accepts in one turn of the reactor: a millisecond. Twisted accepts ever more of them."""

UNLIMITED = 1 << 30
"""The limit of open files if there is none."""


log = Logger()


def file_limit() -> int:
    """Return the limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def fit_connections(connections: int, endpoints: int) -> int:
    """Raise the limit of open files as far as permitted; return how many connections fit, at most the wanted number.

    endpoints: the number of endpoints of the program. Raises StartupError if hardly any connection fits.
    """
    files = _raise_limit(connections + RESERVED_FILES)
    own = OWN_FILES + FILES_PER_ENDPOINT * endpoints
    fitting = max(files - RESERVED_FILES, (files - own) // 2)
    if fitting >= connections:
        return connections
    if fitting < MIN_CONNECTIONS:
        needed = own + 2 * MIN_CONNECTIONS
        raise StartupError(
            f"the limit of open files is {files} (expected at least {needed}); raise it with ulimit -n, or "
            "LimitNOFILE= of the systemd unit"
        )
    log.warn("Accepting at most {n} connections: the limit of open files is {files}", n=fitting, files=files)
    return fitting


def _raise_limit(target: int) -> int:
    """Raise the limit of open files to a target, or as far as allowed; return the smaller of limit and target."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < target and soft != resource.RLIM_INFINITY:
        soft = target if hard == resource.RLIM_INFINITY else min(target, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(target, file_limit())


def count_open_files() -> int:
    """Return the number of open files of this process."""
    try:
        # Since Linux 6.2 the size is the number of files.
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError:  # no /proc, or no file is left to list it
        pass
    try:
        lowest = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return file_limit()
    os.close(lowest)
    return lowest  # a new file has the lowest free descriptor


class AcceptThrottle:
    """Accepts the connections of a server's ports, as many as open files permit.

    Otherwise Twisted would accept and close each further connection, and log the client's address. Connections that
    are not accepted wait in the kernel's queue. When only the spare files are left, the server drops a connection for
    each one that it accepts. When even half of them are in use, accepting is paused: one connection is accepted at an
    interval, so that no client waits forever if the files stay in use.

    name: the server's name in log lines. drops: whether the server drops connections; otherwise accepting is paused
    before spare files are used.
    """

    def __init__(self, clock: IReactorTime, name: str, drops: bool = True) -> None:
        self._clock = clock
        self._name = name
        self._drops = drops
        self._ports: list[Port] = []
        self._available = 0
        self._counted_at: float | None = None
        self._retry: IDelayedCall | None = None
        self._warnings = ThrottledWarnings(log, clock)
        self._is_pause_logged = False
        self.scarce = False
        """Whether only spare files are left."""
        self.paused = False
        """Whether accepting is paused."""

    def add(self, port: Port) -> None:
        """Add a listening port."""
        self._ports.append(port)

    def remove(self, port: Port) -> None:
        """Remove a port that stops listening."""
        self._ports.remove(port)
        if not self._ports and self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def accept(self, port: Port, accept: Callable[[], None]) -> None:
        """Accept connections that wait at a port. accept: the port's doRead()."""
        self._count()
        if not self.paused and self._available < 1 and self._is_exhausted():
            self._pause()
            return
        before = port.sessionno
        port.numberAccepts = min(port.numberAccepts, MAX_ACCEPTED_IN_TURN, max(1, self._available))
        accept()
        self._available -= port.sessionno - before
        if self.paused:
            self._stop_reading()

    def _count(self) -> None:
        """Count how many connections may be accepted until the next count: half of the files that are not spare."""
        now = self._clock.seconds()
        if self._available < 1 or self._counted_at is None or not 0 <= now - self._counted_at < COUNT_INTERVAL:
            self._counted_at = now
            self._available = (_free_files() - _spare_files() + 1) // 2
            self.scarce = self._available < 1

    def _is_exhausted(self, fraction: int = 1) -> bool:
        """Return whether accepting must pause, or even only a fraction of the files that are left then is left."""
        return _free_files() <= _spare_files() // (2 if self._drops else 1) // fraction

    def _pause(self) -> None:
        self.paused = True
        text = "{name}: accepting paused (too many open files)"
        self._is_pause_logged = self._warnings.add("paused", text, name=self._name)
        self._stop_reading()
        self._retry = self._clock.callLater(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        """Resume if files were closed; otherwise let each port accept one connection while any are left."""
        self._retry = None
        if not self._is_exhausted():
            self.paused = False
            if self._is_pause_logged:
                log.info("{name}: accepting resumed", name=self._name)
        else:
            self._retry = self._clock.callLater(PAUSE_SECONDS, self._resume)
            if self._is_exhausted(fraction=2):
                return
        for port in self._ports:
            port.startReading()

    def _stop_reading(self) -> None:
        for port in self._ports:
            port.stopReading()


def _free_files() -> int:
    return file_limit() - count_open_files()


def _spare_files() -> int:
    return min(MAX_SPARE_FILES, file_limit() // 8)
