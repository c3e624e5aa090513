"""A timetable directory: recorded KV7, read at startup; new and changed files are read later."""

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
from govi_server.kv78turbo.ctx import CHUNK_BYTES
from govi_server.runtime.cooperative import named
from govi_server.runtime.text import pluralize

SCAN_INTERVAL = 60.0
"""Seconds between scans of the directory."""


class TimetableDirectory(Service):
    """Ingests the *.ctx and *.gz files of a directory, ordered by name, in steps between other work.

    ingest: called with the chunks of a file and its path; yields after each step. An unreadable file is logged and
    skipped until it changes.
    """

    log = Logger()

    def __init__(
        self,
        path: str,
        clock: IReactorTime,
        cooperator: Cooperator,
        ingest: Callable[[Iterator[bytes], str], Iterator[None]],
    ) -> None:
        self._path = os.path.abspath(path)
        self._clock = clock
        self._cooperator = cooperator
        self._ingest = ingest
        self._read_files: dict[str, tuple[int, int]] = {}
        """The modification time and size of each file that was read."""
        self._call: IDelayedCall | None = None
        self.loaded: Deferred[None] | None = None
        """Fires when the files of the latest scan have been ingested."""

    def startService(self) -> None:
        """Read the directory. Raises StartupError if it is not readable."""
        super().startService()
        try:
            os.listdir(self._path)
        except OSError as error:
            raise StartupError(f"feed.timetable (--timetable): cannot read {self._path}: {error.strerror}") from None
        self._scan()

    def stopService(self) -> None:
        """Stop scanning."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _scan(self) -> None:
        self._call = None
        started = self._clock.seconds()
        paths = self._changed_files()
        self.loaded = self._cooperator.coiterate(self._ingest_files(paths)).addCallback(
            self._ingested, len(paths), started
        )

    def _ingested(self, _: object, n_files: int, started: float) -> None:
        if n_files:
            seconds = self._clock.seconds() - started
            self.log.info(
                "Timetable {path}: {files} read in {seconds:.1f} s",
                path=self._path,
                files=pluralize(n_files, "file"),
                seconds=seconds,
            )
        if self.running:
            self._call = self._clock.callLater(SCAN_INTERVAL, self._scan)

    def _changed_files(self) -> list[str]:
        """Return the files that are new or have changed since they were read."""
        files = {}
        try:
            with os.scandir(self._path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.endswith((".ctx", ".gz")) and entry.is_file():
                        status = entry.stat()
                        files[entry.path] = (status.st_mtime_ns, status.st_size)
        except OSError as error:
            self.log.warn("Timetable {path}: cannot be read: {error}", path=self._path, error=str(error))
            return []
        changed = [path for path, version in files.items() if self._read_files.get(path) != version]
        self._read_files = files
        return changed

    def _ingest_files(self, paths: list[str]) -> Iterator[None]:
        for path in paths:
            try:
                with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
                    chunks = iter(lambda file=file: file.read(CHUNK_BYTES), b"")  # type: ignore[misc]  # a lambda's default has no type
                    yield from named(self._ingest(chunks, path), path)
            except (OSError, EOFError, zlib.error) as error:
                self.log.warn("Timetable file {path}: not read to its end: {error}", path=path, error=str(error))
            except Exception:  # the content of one file must not stop the scans
                self.log.failure("Timetable file {path}: not read to its end", path=path)
