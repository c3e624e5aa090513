"""A real engine, redis-server or valkey-server, for the tests of shared boards."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import hiredis
import pytest

PROGRAMS = ("redis-server", "valkey-server")
MISSING = "redis-server is not installed (apt install redis-server)"


class EngineProcess:
    """An engine without persistence, which listens on a UNIX socket and, if there is one, a TCP port."""

    def __init__(self, directory: Path, name: str, *options: str, port: int = 0) -> None:
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            if os.environ.get("CI"):
                pytest.fail(MISSING)
            pytest.skip(MISSING)
        self.path = str(directory / f"{name}.sock")
        self.port = port
        self._arguments = [
            program, "--port", str(port), "--unixsocket", self.path, "--save", "", "--dir", str(directory),
            "--bind", "127.0.0.1", *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        """Start the engine; return when it replies."""
        self._process = subprocess.Popen(self._arguments, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                self.command("PING")
                return
            except OSError:
                time.sleep(0.01)
        raise AssertionError("the engine does not reply")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End the engine at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def command(self, *arguments: str | bytes | int) -> Any:
        """Return the reply to a command. Raises hiredis.ReplyError."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(self.path)
            client.sendall(hiredis.pack_command(arguments))  # type: ignore[arg-type]
            reader = hiredis.Reader(notEnoughData=reader_needs_more)
            while (reply := reader.gets()) is reader_needs_more:
                data = client.recv(65536)
                if not data:
                    raise ConnectionError
                reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply


reader_needs_more = object()
