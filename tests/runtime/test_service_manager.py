"""Tests of govi_server.runtime.service_manager, with the socket of a service manager."""

import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.service_manager import ServiceManager


class ServiceManagerTests(SynchronousTestCase):
    """The messages to the service manager."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = str(Path(directory.name, "notify"))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.clock = Clock()

    def manager(self, **environ: str) -> ServiceManager:
        manager = ServiceManager(self.clock, environ, lambda: 1.5)
        manager.status = lambda: f"{self.clock.seconds():g} s"
        return manager

    def messages(self) -> list[list[str]]:
        """Return the messages that were received, each as lines."""
        self.socket.setblocking(False)
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return messages

    def test_states(self) -> None:
        """READY, STATUS, RELOADING and STOPPING are sent, to a path or an abstract address."""
        for address, name in ((self.path, self.path), (f"\0{self.path}", f"@{self.path}")):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.addCleanup(self.socket.close)
            self.socket.bind(address)
            manager = self.manager(NOTIFY_SOCKET=name)
            start = self.clock.seconds()
            manager.startService()
            self.clock.advance(10)
            manager.reloading()
            manager.ready()
            manager.stopService()
            self.clock.advance(100)
            self.assertEqual(
                self.messages(),
                [
                    ["READY=1", f"STATUS={start:g} s"],
                    [f"STATUS={start:g} s"],
                    [f"STATUS={start + 10:g} s"],
                    ["RELOADING=1", "MONOTONIC_USEC=1500000"],
                    ["READY=1", f"STATUS={start + 10:g} s"],
                    ["STOPPING=1", "STATUS=Stopping"],
                ],
            )

    def test_watchdog(self) -> None:
        """The watchdog is fed in half of its interval, unless it is that of another process."""
        self.socket.bind(self.path)
        for pid, expected in ((os.getpid(), 4), (1, 0)):
            manager = self.manager(NOTIFY_SOCKET=self.path, WATCHDOG_USEC="4000000", WATCHDOG_PID=f"{pid}")
            manager.startService()
            self.clock.pump([0.5] * 13)
            manager.stopService()
            self.assertEqual(sum("WATCHDOG=1" in message for message in self.messages()), expected)

    def test_without_service_manager(self) -> None:
        """Without NOTIFY_SOCKET nothing is sent; one that does not listen is a warning, not an error."""
        manager = self.manager(WATCHDOG_USEC="1000000")
        manager.startService()
        manager.reloading()
        manager.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        manager = self.manager(NOTIFY_SOCKET=f"{self.path}-absent")
        manager.startService()
        manager.stopService()
