"""A real engine for the tests of shared boards: redis-server or valkey-server, or the program in ENGINE."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hiredis
import pytest

PROGRAMS = ("redis-server", "valkey-server")
_INCOMPLETE = object()

MISSING = "redis-server is not installed (apt install redis-server)"


class EngineProcess:
    """An engine without persistence, which listens on a UNIX socket and, if there is one, a TCP port."""

    def __init__(self, directory: Path, name: str, *options: str, port: int = 0) -> None:
        program = os.environ.get("ENGINE") or next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            if os.environ.get("REQUIRE_ENGINE"):
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
        return self.commands(arguments)[0]

    def commands(self, *commands: Sequence[str | bytes | int]) -> list[Any]:
        """Return the replies to commands on one connection. Raises hiredis.ReplyError."""
        replies: list[Any] = []
        reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(self.path)
            client.sendall(b"".join(hiredis.pack_command(tuple(command)) for command in commands))  # type: ignore[arg-type]
            while len(replies) < len(commands):
                if (reply := reader.gets()) is not _INCOMPLETE:
                    replies.append(reply)
                elif data := client.recv(65536):
                    reader.feed(data)
                else:
                    raise ConnectionError
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise reply
        return replies
