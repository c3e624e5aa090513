"""Reports the state of the program to its service manager, such as systemd with Type=notify (sd_notify(3))."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger

from govi_server.runtime.repeated_call import RepeatedCall

STATUS_INTERVAL = 10.0
"""Seconds between messages with the status."""


class ServiceManager(RepeatedCall):
    """Sends messages to the socket in NOTIFY_SOCKET; does nothing without it.

    The watchdog is fed by the reactor: a program whose event loop stands still for WATCHDOG_USEC is restarted.
    status: returns one line for `systemctl status`. monotonic: the clock of RELOADING, in seconds.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        environ: Mapping[str, str] = os.environ,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._monotonic = monotonic
        self.status: Callable[[], str] = lambda: ""
        interval = STATUS_INTERVAL
        self._has_watchdog = bool(path) and environ.get("WATCHDOG_PID", f"{os.getpid()}") == f"{os.getpid()}"
        self._has_watchdog &= environ.get("WATCHDOG_USEC", "").isdecimal()
        if self._has_watchdog:
            interval = min(interval, int(environ["WATCHDOG_USEC"]) / 1e6 / 2)
        super().__init__("Reporting the status", reactor, interval, self._tick)

    def startService(self) -> None:
        """Report that the program serves."""
        if self._address:
            self.ready()
            super().startService()

    def stopService(self) -> Any:
        """Report that the program stops."""
        self._send("STOPPING=1", "STATUS=Stopping")
        return super().stopService() if self.running else None

    def reloading(self) -> None:
        """Report that the program reloads what can be reloaded; followed by ready()."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._monotonic() * 1e6:.0f}")

    def ready(self) -> None:
        """Report that the program serves."""
        self._send("READY=1", *self._lines())

    def _tick(self) -> None:
        self._send(*self._lines(), *(["WATCHDOG=1"] if self._has_watchdog else []))

    def _lines(self) -> list[str]:
        return [f"STATUS={status}"] if (status := self.status()) else []

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as sock:
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            self.log.warn("Service manager not notified of {line}: {error}", line=lines[0], error=error)
