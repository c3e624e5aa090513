"""Keeps planning up to date: looks for a new GTFS file once a day, checks it, and hands it over."""

import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from govi_server.departures.times import DAY, local_date
from govi_server.planning import layout
from govi_server.planning.compiler import Result
from govi_server.planning.compiling import compile_in_child
from govi_server.planning.download import Downloader, DownloadError, IndexedFile, Validators, file_date
from govi_server.planning.planning import Planning
from govi_server.planning.store import PlanningStore, State
from govi_server.runtime.text import pluralize

CHECK_SECONDS = float(DAY)
"""Seconds between two checks of a site for a new file, as its operators request (docs/protocols.md, section 6)."""

MIN_BACK_OFF, MAX_BACK_OFF = 300.0, 6 * 3600.0
"""Seconds until a failed attempt is repeated: at first, and after many failures. Also after a restart."""

LONGEST_BACK_OFF = 8
"""Failures after which the pause is the longest."""

SCAN_SECONDS = 60.0
"""Seconds between two checks of a file or a directory of this machine."""

MAX_AGE_DAYS = 3
"""Files of an index that are older are not used."""

Compile = Callable[..., Awaitable[Result]]


class CompilationError(Exception):
    """A file could not be compiled, though another attempt may succeed; the message is the reason."""


class PlanningService(Service):
    """Provides the planning of a source, checked for new files once a day.

    source: the address of an index or of a zip, or the path of a file or directory. use: called with the planning at
    the start, if a file is stored, and with each new one. limits: the maximum number of calls, and of rows of other
    tables. Starting never waits for a file.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        source: str,
        store: PlanningStore,
        use: Callable[[Planning], object],
        limits: tuple[int, int],
        user_agent: str,
        compile_file: Compile = compile_in_child,
    ) -> None:
        self._reactor = reactor
        self._is_site = source.startswith(("http://", "https://"))
        self._has_compiler_failed = False
        self.source = source if self._is_site else os.path.abspath(source)  # twistd may change its directory
        self._store = store
        self._use = use
        self._limits = limits
        self._downloader = Downloader(reactor, user_agent)
        self._compile = compile_file
        self._call: IDelayedCall | None = None
        self._work: Deferred[None] | None = None
        self.state = State()
        self.problem = ""
        """Why the latest attempt failed; "" if it did not."""
        self.planning: Planning | None = None

    @property
    def age(self) -> float:
        """Seconds since the file in use was published; 0 without one."""
        return 0.0 if self.planning is None else self._reactor.seconds() - self.planning.header.published

    def startService(self) -> None:
        """Use the stored planning, and look for a new file in the background if it is time."""
        super().startService()
        self.state = self._store.open(self._reactor.seconds())
        directory = self._store.directory
        if self._store.is_temporary:
            text = "GTFS {source}: no writable cache directory, so each start downloads the file ({directory})"
            self.log.warn(text, source=self.source, directory=directory)
        else:
            frequency = "once a day" if self._is_site else "when it changes"
            text = "GTFS {source}: planning and names, read {frequency}, kept in {directory}; --gtfs '' for none"
            self.log.info(text, source=self.source, frequency=frequency, directory=directory)
        if self._store.planning.exists():
            try:
                self._open()
            except (OSError, layout.BrokenFile) as error:
                self.log.warn("GTFS {path}: not used: {reason}", path=self._store.planning, reason=str(error))
        if self.planning is None:
            self.state.checked_at, self.state.name, self.state.validators = 0.0, "", Validators()
            self.state.refused = ""
        self._schedule()

    def stopService(self) -> None:
        """Cancel what is under way."""
        super().stopService()
        if self._call is not None and self._call.active():
            self._call.cancel()
        if self._work is not None:
            self._work.cancel()

    def _schedule(self) -> None:
        """Look for a file when it is time."""
        now, state = self._reactor.seconds(), self.state
        scans = not (self._is_site or self._has_compiler_failed)
        if scans:
            pause = SCAN_SECONDS if state.checked_at or state.failures else 0.0
        elif state.failures:
            back_off = MIN_BACK_OFF * 2 ** min(state.failures - 1, LONGEST_BACK_OFF)
            pause = state.failed_at + min(back_off, MAX_BACK_OFF) - now
        else:
            pause = state.checked_at + CHECK_SECONDS - now
        limit = SCAN_SECONDS if scans else CHECK_SECONDS  # after the clock was set back
        self._call = self._reactor.callLater(min(max(pause, 0.0), limit), self._start)

    def _start(self) -> None:
        self._call = None
        self._work = Deferred.fromCoroutine(self._check())
        self._work.addErrback(self._failed).addBoth(self._ended)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("GTFS {source}: failed", failure, source=self.source)
            self._fail("internal error, see the log")

    def _ended(self, _: object) -> None:
        self._work = None
        for path in (self._store.new_file, self._store.new_planning):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                text = "GTFS {source}: {path} not removed: {reason}"
                self.log.warn(text, source=self.source, path=path, reason=error.strerror)
        if self.running:
            self._save()
            self._schedule()

    def _save(self) -> None:
        try:
            self._store.save(self.state)
        except OSError as error:
            self.log.warn("GTFS {source}: state not stored: {reason}", source=self.source, reason=str(error))

    async def _check(self) -> None:
        self._has_compiler_failed = False
        try:
            await (self._check_site() if self._is_site else self._check_path())
        except DownloadError as error:
            self._fail(str(error))
        except CompilationError as error:
            self._has_compiler_failed = True
            self._fail(str(error))
        except OSError as error:
            self._fail(f"{error.filename or 'cannot start the compiler'}: {error.strerror}")

    def _fail(self, reason: str) -> None:
        self.state.failures += 1
        self.state.failed_at = self._reactor.seconds()
        if reason != self.problem or self._is_site:
            in_use = "" if self.planning is None else f"; {self.planning.header.name} stays in use"
            self.log.warn("GTFS {source}: {reason}{in_use}", source=self.source, reason=reason, in_use=in_use)
        self.problem = reason

    def _refuse(self, reason: str) -> None:
        """Record that a file is not usable, which it will not be soon."""
        self._fail(reason)
        self.state.failures += LONGEST_BACK_OFF

    def _is_due_again(self) -> bool:
        """Return whether the latest file was refused on another day: it may be for the dates of today."""
        state, now = self.state, self._reactor.seconds()
        return bool(state.refused) and local_date(state.failed_at) != local_date(now)

    def _record_file(self, name: str, version: Validators, problem: str) -> None:
        """Record a file that was compiled, or refused because of a problem."""
        self.state.name, self.state.validators = name, version
        self.state.refused = f"{name} refused: {problem}" if problem else ""

    def _succeed(self) -> None:
        self.state.checked_at, self.state.failures = self._reactor.seconds(), 0
        self.problem = ""

    # A site.

    async def _check_site(self) -> None:
        """Fetch the newest file; without any planning, an older one if that is not usable."""
        problems, failures = [], []
        for file in await self._candidates():
            known = (
                self.state.validators if file.name == self.state.name and not self._is_due_again() else Validators()
            )
            validators = await self._downloader.fetch(file.url, self._store.new_file, known)
            if validators is None and self.state.refused:
                self._refuse(self.state.refused)
                return
            if validators is None:
                self.log.info("GTFS {url}: not modified", url=file.url)
                self._succeed()
                return
            try:
                problem = await self._use_file(self._store.new_file, file.name)
            except CompilationError as error:
                failures.append(error)
                if self.planning is not None:
                    break
                continue
            self._record_file(file.name, validators, problem)  # a refused file is not fetched again
            if not problem:
                self._succeed()
                return
            problems.append(self.state.refused)
            if self.planning is not None:
                break
        if failures:
            raise failures[0]
        self._refuse("; ".join(problems))

    async def _candidates(self) -> list[IndexedFile]:
        if self.source.endswith(".zip"):
            name = self.source.rpartition("/")[2]
            return [IndexedFile(local_date(self._reactor.seconds()), name, self.source)]
        today = local_date(self._reactor.seconds())
        listed = await self._downloader.index(self.source)
        days = today - timedelta(MAX_AGE_DAYS), today + timedelta(1)
        files = [file for file in listed if days[0] <= file.day <= days[1]]
        if not files:
            raise DownloadError(f"{self.source}: the newest file is {listed[0].name}, older than {MAX_AGE_DAYS} days")
        used = None if self.planning is None else file_date(self.planning.header.name)
        if used is not None and files[0].day < used:
            raise DownloadError(f"{self.source}: the newest file is {files[0].name}, older than the one in use")
        return files

    # A file or a directory.

    async def _check_path(self) -> None:
        path = Path(self.source)
        if path.is_dir() and not (path / "stops.txt").exists():
            dated = [(day, file) for file in path.iterdir() if (day := file_date(file.name)) is not None]
            if not dated:
                raise DownloadError(f"{path}: contains neither stops.txt nor a file gtfs-kv7-YYYYMMDD.zip")
            path = max(dated)[1]
        status = (path / "stop_times.txt" if path.is_dir() else path).stat()
        version = Validators(f"{status.st_mtime_ns}-{status.st_size}")
        if (path.name, version) != (self.state.name, self.state.validators) or self._is_due_again():
            problem = await self._use_file(path, path.name)
            self._record_file(path.name, version, problem)
            if problem:
                self._refuse(self.state.refused)
                return
        elif self.state.refused:
            self.problem = self.state.refused
            return
        self._succeed()

    # All.

    async def _use_file(self, path: Path, name: str) -> str:
        """Compile a file, and use it; return the reason if it was refused, "" if it was not.

        Raises CompilationError if another attempt may succeed.
        """
        started = self._reactor.seconds()
        previous = self._store.planning if self.planning is not None else None
        target, today = self._store.new_planning, local_date(started)
        result = await self._compile(self._reactor, path, name, previous, target, today, self._limits)
        if result.failure:
            raise CompilationError(f"{name}: {result.failure}")
        if result.error:
            return result.error
        target.replace(self._store.planning)
        self._open()
        self.log.info(
            "GTFS {name}: {stops}, {calls} in {seconds:.0f} s",
            name=name,
            stops=pluralize(result.n_stops, "stop"),
            calls=pluralize(result.n_calls, "planned passtime"),
            seconds=self._reactor.seconds() - started,
        )
        if result.kept:
            text = "GTFS {name}: has half or less of the stops of {operators}, whose earlier planning stays in use"
            self.log.warn(text, name=name, operators=", ".join(result.kept))
        if result.fewer:
            text = "GTFS {name}: has less than 80 % of the earlier stops of {operators}"
            self.log.warn(text, name=name, operators=", ".join(result.fewer))
        if result.rejected:
            reasons = ", ".join(f"{number} ({reason})" for reason, number in result.rejected.items())
            self.log.info("GTFS {name}: rejected rows: {reasons}", name=name, reasons=reasons)
        return ""

    def _open(self) -> None:
        self.planning = Planning.open(self._store.planning)
        self._use(self.planning)
