"""Runs the compiler in a child process."""

import os
import sys
from datetime import date
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import govi_server
from govi_server.planning.compiler import Result

MAX_SECONDS = 1800.0
"""Time for compiling, of which the process may use the processor for a third."""

MAX_OUTPUT_BYTES = 1 << 18

_ROOT = Path(govi_server.__file__).parents[1]


async def compile_in_child(
    reactor: Any, source: Path, name: str, previous: Path | None, target: Path, today: date, limits: tuple[int, int]
) -> Result:
    """Compile a GTFS file; see compiler.compile_file(). limits: its max_calls and max_names.

    Cancelling it ends the process. Raises OSError if none can be started.
    """
    arguments = [str(source), name, str(previous or ""), str(target), str(today), *map(str, limits)]
    protocol = _Compiler(reactor)
    # -P: the working directory may be anything. Without a path and user of its own, the child is spawned, not forked:
    # a fork of a process with gigabytes of memory takes 50 ms.
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    reactor.spawnProcess(
        protocol,
        sys.executable,
        [sys.executable, "-P", "-m", "govi_server.planning.compiler", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    return await protocol.done


class _Compiler(ProcessProtocol):
    """Collects the result of the process."""

    transport: IProcessTransport

    def __init__(self, reactor: Any) -> None:
        self.done: Deferred[Result] = Deferred(lambda _: self._kill())
        self._output = b""
        self._errors = b""
        self._reactor = reactor
        self._timeout: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._timeout = self._reactor.callLater(MAX_SECONDS, self._kill)
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._output = (self._output + data)[:MAX_OUTPUT_BYTES]

    def errReceived(self, data: bytes) -> None:
        self._errors = (self._errors + data)[-MAX_OUTPUT_BYTES:]

    def processEnded(self, reason: Failure) -> None:
        is_late = self._timeout is not None and not self._timeout.active()
        if self._timeout is not None and not is_late:
            self._timeout.cancel()
        if self.done.called:
            return
        if reason.check(ProcessDone):
            try:
                self.done.callback(msgspec.json.decode(self._output, type=Result))
                return
            except ValueError:
                pass
        lines = self._errors.decode("utf-8", "replace").strip().splitlines()
        problem = f"the compiler failed: {lines[-1] if lines else reason.getErrorMessage()}"
        # The system kills processes when memory is short. Otherwise the file is the probable cause.
        was_killed = isinstance(reason.value, ProcessTerminated) and reason.value.signal in (SIGKILL, SIGTERM)
        self.done.callback(Result(failure=problem) if was_killed and not is_late else Result(problem))

    def _kill(self) -> None:
        if self.transport.pid is not None:
            self.transport.signalProcess("KILL")
