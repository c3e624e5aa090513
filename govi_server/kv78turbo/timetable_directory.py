"""A folder of recorded KV7: read when the program starts, and again what is new in it."""

import gzip
import os
import zlib
from collections.abc import Callable, Iterator

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Cooperator
from twisted.logger import Logger

from govi_server.errors import StartupError
from govi_server.kv78turbo.ctx import PIECE

LOOK_EVERY = 60.0
"""Seconds between two looks for files that are new or have changed."""


class TimetableDirectory(Service):
    """Reads the files of a folder, *.ctx and *.gz, in the order of their names, bit by bit between other work.

    read: takes the bytes of a file in, bit by bit. A file that cannot be read is named in the log and passed over
    until it changes. Raises CannotStart when the folder cannot be read at all.
    """

    log = Logger()

    def __init__(
        self,
        path: str,
        clock: IReactorTime,
        cooperator: Cooperator,
        read: Callable[[Iterator[bytes]], Iterator[None]],
    ) -> None:
        self._path = os.path.abspath(path)
        self._clock = clock
        self._cooperator = cooperator
        self._read = read
        self._seen: dict[str, tuple[int, int]] = {}
        self._call: IDelayedCall | None = None
        self.loaded: Deferred[None] | None = None
        """Fires when what is new has been read."""

    def startService(self) -> None:
        """Read what is there. Raises CannotStart."""
        super().startService()
        try:
            os.listdir(self._path)
        except OSError as error:
            raise StartupError(f"cannot read the timetable in {self._path}: {error.strerror}") from None
        self._look()

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        begun = self._clock.seconds()
        new = self._new()
        self.loaded = self._cooperator.coiterate(self._take(new)).addCallback(self._taken, len(new), begun)

    def _taken(self, _: object, files: int, begun: float) -> None:
        if files:
            took = self._clock.seconds() - begun
            self.log.info("{n} files of timetable read in {took:.1f} s", n=files, took=took)
        if self.running:
            self._call = self._clock.callLater(LOOK_EVERY, self._look)

    def _new(self) -> list[str]:
        """List the files that were not read as they are now."""
        new = []
        try:
            with os.scandir(self._path) as entries:
                for entry in sorted(entries, key=lambda one: one.name):
                    if not entry.name.endswith((".ctx", ".gz")) or not entry.is_file():
                        continue
                    status = entry.stat()
                    sign = (status.st_mtime_ns, status.st_size)
                    if self._seen.get(entry.path) != sign:
                        self._seen[entry.path] = sign
                        new.append(entry.path)
        except OSError as error:
            self.log.warn("Cannot read the timetable in {path}: {error}", path=self._path, error=str(error))
        return new

    def _take(self, paths: list[str]) -> Iterator[None]:
        for path in paths:
            try:
                with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
                    yield from self._read(iter(lambda file=file: file.read(PIECE), b""))  # type: ignore[misc]  # a lambda's default has no type
            except (OSError, EOFError, zlib.error) as error:
                self.log.warn("{path} is not read to its end: {error}", path=path, error=str(error))
            except Exception:  # what one file has must not end the looks for others
                self.log.failure("{path} is not read to its end", path=path)
