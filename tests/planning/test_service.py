"""Tests of looking for files, and of what is stored of them."""

import io
import os
import sys
from collections.abc import Mapping
from datetime import date, timedelta
from errno import EAGAIN, ENOSPC
from pathlib import Path
from signal import SIGKILL, SIGTERM, SIGXCPU
from typing import Any
from unittest import mock

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from govi_server.planning import compiler, layout
from govi_server.planning.compiler import Result, compile_file
from govi_server.planning.compiling import MAX_SECONDS, compile_in_child
from govi_server.planning.download import DownloadError, IndexedFile, Validators, read_index
from govi_server.planning.gtfs import InvalidGtfs
from govi_server.planning.planning import Planning
from govi_server.planning.service import CHECK_SECONDS, MAX_BACK_OFF, MIN_BACK_OFF, SCAN_SECONDS, PlanningService
from govi_server.planning.store import PlanningStore, cache_directory
from tests.client import NOW
from tests.planning.files import TODAY, call, tables, temporary_directory, week, zipped

SITE = "https://gtfs.example/govi/"


class FakeSite:
    """A site with files, in place of the downloader. requests: what was requested."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, Validators]] = []
        self.problem = ""
        self.waiting: Deferred[None] | None = None

    async def index(self, url: str) -> list[IndexedFile]:
        self.requests.append((url, Validators()))
        if self.waiting is not None:
            await self.waiting
        if self.problem:
            raise DownloadError(self.problem)
        return read_index("".join(f' href="{name}"' for name in self.files), url)

    async def fetch(self, url: str, path: Path, known: Validators) -> Validators | None:
        name = url.rpartition("/")[2]
        self.requests.append((name, known))
        content = self.files[name]
        version = Validators(etag=f'"{hash(content)}"')
        if known == version:
            return None
        path.write_bytes(content)
        return version


async def compile_here(
    reactor: object,
    source: Path,
    name: str,
    previous: Path | None,
    target: Path,
    today: date,
    limits: tuple[int, int],
) -> Result:
    """Compile in this process."""
    try:
        return compile_file(source, name, previous, target, today, *limits)
    except InvalidGtfs as error:
        return Result(str(error))
    except OSError as error:
        return Result(failure=str(error))


def gtfs(n_stops: int = 4, first: date = TODAY) -> bytes:
    """Return a file with a line that calls at some stops, for a week."""
    stops = [{"stop_id": str(n)} for n in range(1, n_stops + 1)]
    calls = [call("LIN|L004|77|1001|0", str(n), "10:00:00", n) for n in range(1, n_stops + 1)]
    return zipped(tables(stops=stops, stop_times=calls, calendar_dates=week(first)))


def name_of(day: date) -> str:
    return f"gtfs-kv7-{day:%Y%m%d}.zip"


class ServiceTestCase(SynchronousTestCase):
    """A service with a cache directory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.cache = temporary_directory(self) / "x"
        self.used: list[Planning] = []
        self.logged: list[str] = []

    def start(self, source: str, site: FakeSite | None = None) -> PlanningService:
        """Start a service, which is a new process if there was one."""
        store = PlanningStore(self.cache, source)
        reactor: Any = self.clock
        service = PlanningService(reactor, source, store, self.used.append, (1000, 1000), "x/1", compile_here)
        service._downloader = site or FakeSite()  # type: ignore[assignment]  # a double
        logger: Any = _Log(self.logged)
        self.patch(service, "log", logger)
        service.startService()
        self.addCleanup(service.stopService)
        self.clock.advance(0)
        return service


class CompilingTests(SynchronousTestCase):
    """The child process."""

    def test_no_process_can_be_started(self) -> None:
        """An error of the system is reported, and no timeout is left."""
        clock: Any = Clock()

        def spawn(*_: object, **__: object) -> None:
            raise OSError(EAGAIN, "Resource temporarily unavailable")

        clock.spawnProcess = spawn
        compiling = compile_in_child(clock, Path("a.zip"), "a", None, Path("b"), TODAY, (1, 1))
        self.failureResultOf(Deferred.fromCoroutine(compiling), OSError)
        self.assertEqual(clock.getDelayedCalls(), [])

    def ended(self, reason: BaseException, seconds: float = 1.0) -> Result:
        """Return the result of a process that ends for a reason after some seconds, or is killed before."""
        clock: Any = Clock()
        started: list[ProcessProtocol] = []

        def spawn(protocol: ProcessProtocol, *_: object, **__: object) -> None:
            protocol.makeConnection(mock.Mock(pid=1))
            started.append(protocol)

        clock.spawnProcess = spawn
        compiling = compile_in_child(clock, Path("a.zip"), "a", None, Path("b"), TODAY, (1, 1))
        result = Deferred.fromCoroutine(compiling)
        clock.advance(seconds)
        started[0].errReceived(b"Traceback\nKeyError: 1\n")
        started[0].processEnded(Failure(reason))
        return self.successResultOf(result)

    def test_process_that_was_killed(self) -> None:
        """A process that another one has killed may succeed later; one that fails by itself refuses the file."""
        for number in (SIGKILL, SIGTERM):
            result = self.ended(ProcessTerminated(signal=number))
            self.assertEqual((result.error, result.failure), ("", "the compiler failed: KeyError: 1"))
        for reason, seconds in (
            (ProcessTerminated(1), 1.0),
            (ProcessTerminated(signal=SIGXCPU), 1.0),
            (ProcessTerminated(signal=SIGKILL), MAX_SECONDS),  # it took too long
            (ProcessDone(0), 1.0),  # without a result
        ):
            result = self.ended(reason, seconds)
            self.assertEqual((result.error, result.failure), ("the compiler failed: KeyError: 1", ""), reason)

    def test_error_of_the_system(self) -> None:
        """An error of the system, such as a full disk, does not refuse the file."""
        directory = temporary_directory(self)
        source, output = directory / "a.zip", io.BytesIO()
        source.write_bytes(gtfs())
        arguments = [str(source), "a", "", str(directory / "planning"), str(TODAY), "1000", "1000"]
        self.patch(layout, "write", mock.Mock(side_effect=OSError(ENOSPC, "No space left on device")))
        self.patch(compiler, "_limit", lambda *_: None)
        self.patch(os, "nice", lambda _: None)
        self.patch(sys, "stdout", mock.Mock(buffer=output))
        compiler.main(arguments)
        result = msgspec.json.decode(output.getvalue(), type=Result)
        self.assertEqual((result.error, result.failure), ("", f"{directory}/planning: No space left on device"))


class _Log:
    """Records the formatted lines of a logger."""

    def __init__(self, lines: list[str]) -> None:
        def record(format: str, *_: object, **fields: object) -> None:
            lines.append(format.format(**fields))

        self.info = self.warn = self.failure = record


class SiteTests(ServiceTestCase):
    """A site with an index."""

    def setUp(self) -> None:
        super().setUp()
        self.site = FakeSite()
        self.site.files = {name_of(TODAY - timedelta(1)): gtfs(3), name_of(TODAY): gtfs()}

    def names(self) -> list[str]:
        """Return the names of the requests since the last call."""
        names = [name for name, _ in self.site.requests]
        self.site.requests.clear()
        return names

    def test_newest_file_is_used(self) -> None:
        """The newest file of the index is fetched, compiled and used."""
        service = self.start(SITE, self.site)
        self.assertEqual(self.names(), [SITE, name_of(TODAY)])
        self.assertEqual([planning.header.name for planning in self.used], [name_of(TODAY)])
        self.assertEqual((service.problem, service.state.checked_at), ("", NOW))
        self.assertEqual(sorted(path.name for path in service._store.directory.iterdir()), ["planning", "state.json"])

    def test_once_a_day(self) -> None:
        """The site is asked once a day, for the version that is known; a file that is the same is not compiled."""
        self.start(SITE, self.site)
        self.clock.advance(CHECK_SECONDS - 1)
        self.assertEqual(len(self.site.requests), 2)
        self.clock.advance(1)
        self.assertEqual([known.etag != "" for _, known in self.site.requests], [False, False, False, True])
        self.assertEqual(len(self.used), 1)
        self.site.files = {name_of(TODAY + timedelta(2)): gtfs(4, TODAY + timedelta(2))}
        self.names()
        self.clock.advance(CHECK_SECONDS)
        self.assertEqual((self.names(), len(self.used)), ([SITE, name_of(TODAY + timedelta(2))], 2))

    def test_restart_needs_no_network(self) -> None:
        """After a restart, the stored planning is used at once, and the site is asked when its day is over."""
        self.start(SITE, self.site).stopService()
        self.names()
        self.clock.advance(3600)
        self.start(SITE, self.site)
        self.assertEqual((self.names(), len(self.used)), ([], 2))
        self.clock.advance(CHECK_SECONDS - 3600)
        self.assertEqual(self.names(), [SITE, name_of(TODAY)])

    def test_addresses_do_not_share_files(self) -> None:
        """What is stored of another address is not used."""
        self.start(SITE, self.site)
        self.start("https://other.example/", FakeSite())
        self.assertEqual(len(self.used), 1)

    def test_failures_are_repeated_with_back_off(self) -> None:
        """A failed attempt is repeated after pauses that double, also after a restart; the planning stays in use."""
        service = self.start(SITE, self.site)
        self.site.problem = f"{SITE}: HTTP status 500"
        self.clock.advance(CHECK_SECONDS)
        self.names()
        for n in range(12):
            pause = min(MIN_BACK_OFF * 2**n, MAX_BACK_OFF)
            self.clock.advance(pause - 1)
            self.assertEqual(self.names(), [], n)
            service.stopService()
            service = self.start(SITE, self.site)
            self.assertEqual(self.names(), [], n)
            self.clock.advance(1)
            self.assertEqual(self.names(), [SITE], n)
        self.assertIn(f"HTTP status 500; {name_of(TODAY)} stays in use", self.logged[-1])
        self.site.problem = ""
        self.clock.advance(MAX_BACK_OFF)
        self.assertEqual((service.problem, service.state.failures), ("", 0))

    def test_refused_file_does_not_replace_the_planning(self) -> None:
        """A file that is damaged, not of these days, or has half of the stops is refused; the planning stays."""
        service = self.start(SITE, self.site)
        for n, (content, reason) in enumerate(
            (
                (b"<html>", "not a zip file"),
                (gtfs()[:-40], "not a zip file"),
                (gtfs(4, TODAY - timedelta(20)), "no trip has calls"),
                (gtfs(2, TODAY + timedelta(1)), "it has half or less of the stops of LIN"),
            ),
            1,
        ):
            self.site.files = {name_of(TODAY): gtfs(), name_of(TODAY + timedelta(1)): content}
            self.names()
            self.clock.advance(CHECK_SECONDS if n == 1 else MAX_BACK_OFF)
            self.assertEqual(self.names(), [SITE, name_of(TODAY + timedelta(1))])
            self.assertIn(reason, service.problem)
            self.assertEqual(len(self.used), 1)
            self.assertEqual(Planning.open(service._store.planning).n_stops, 4)

    def test_failure_of_the_compiler_is_repeated(self) -> None:
        """A file that could not be compiled, as on a full disk, is not refused: it is fetched again after minutes."""
        with mock.patch.object(layout, "write", side_effect=OSError(ENOSPC, "No space left on device")):
            service = self.start(SITE, self.site)
        self.assertIn(f"{name_of(TODAY)}: [Errno {ENOSPC}] No space left on device", service.problem)
        names = [SITE, name_of(TODAY), name_of(TODAY - timedelta(1))]
        self.assertEqual((self.names(), self.used, service.state.refused), (names, [], ""))
        self.clock.advance(MIN_BACK_OFF)
        self.assertEqual((self.names(), len(self.used), service.problem), ([SITE, name_of(TODAY)], 1, ""))

    def test_older_file_after_a_failure_of_the_compiler(self) -> None:
        """Without planning, an older file is used if the newest one could not be compiled."""
        write = layout.write

        def write_older(path: Path, header: layout.Header, columns: Any) -> None:
            if header.name == name_of(TODAY):
                raise OSError(ENOSPC, "No space left on device")
            write(path, header, columns)

        with mock.patch.object(layout, "write", write_older):
            self.start(SITE, self.site)
        self.assertEqual([planning.header.name for planning in self.used], [name_of(TODAY - timedelta(1))])

    def test_refused_file_stays_refused(self) -> None:
        """A refused file is not fetched again on the same day, and remains the problem, also after a restart."""
        service = self.start(SITE, self.site)
        self.site.files = {name_of(TODAY + timedelta(1)): b"<html>"}
        self.clock.advance(CHECK_SECONDS)
        for _ in range(2):
            service.stopService()
            service = self.start(SITE, self.site)
            self.clock.advance(MAX_BACK_OFF)
            self.assertIn("not a zip file", service.problem)
            self.assertNotEqual(self.site.requests[-1][1], Validators())
        self.assertNotEqual(service.state.failures, 0)

    def test_file_of_tomorrow(self) -> None:
        """A file that is not for today yet is fetched again on the next day."""
        service = self.start(SITE, self.site)
        self.site.files = {name_of(TODAY + timedelta(1)): gtfs(4, TODAY + timedelta(2))}
        self.clock.advance(CHECK_SECONDS)
        self.assertIn("it is for 2026-01-03", service.problem)
        self.clock.advance(CHECK_SECONDS)
        self.assertEqual((service.problem, len(self.used)), ("", 2))

    def test_older_file_without_planning(self) -> None:
        """If the newest file is not usable and there is no planning, the one before is used."""
        self.site.files[name_of(TODAY)] = b"broken"
        self.start(SITE, self.site)
        self.assertEqual(self.names(), [SITE, name_of(TODAY), name_of(TODAY - timedelta(1))])
        self.assertEqual([planning.n_stops for planning in self.used], [3])

    def test_old_index(self) -> None:
        """Files that are older than three days are not fetched."""
        self.site.files = {name_of(TODAY - timedelta(4)): gtfs()}
        service = self.start(SITE, self.site)
        self.assertIn("older than 3 days", service.problem)
        self.assertEqual((self.names(), self.used), ([SITE], []))

    def test_older_file_than_the_one_in_use(self) -> None:
        """Planning is not replaced by that of an earlier day."""
        service = self.start(SITE, self.site)
        del self.site.files[name_of(TODAY)]
        self.names()
        self.clock.advance(CHECK_SECONDS)
        self.assertIn(
            f"the newest file is {name_of(TODAY - timedelta(1))}, older than the one in use", service.problem
        )
        self.assertEqual((self.names(), len(self.used)), ([SITE], 1))

    def test_damaged_planning(self) -> None:
        """Stored planning that cannot be read is fetched again."""
        service = self.start(SITE, self.site)
        service.stopService()
        service._store.planning.write_bytes(b"x" * 100)
        (service._store.directory / "state.json").write_bytes(b"{")
        self.names()
        self.start(SITE, self.site)
        self.assertEqual((self.names(), len(self.used)), ([SITE, name_of(TODAY)], 2))

    def test_clock_set_back(self) -> None:
        """After the clock was set back, the site is asked within a day."""
        self.start(SITE, self.site).stopService()
        self.names()
        self.clock.rightNow -= 400 * CHECK_SECONDS
        self.start(SITE, self.site)
        self.clock.advance(CHECK_SECONDS)
        self.assertEqual(self.names(), [SITE])

    def test_stop_during_a_request(self) -> None:
        """Stopping cancels a request, which is no failure."""
        self.site.waiting = Deferred()
        service = self.start(SITE, self.site)
        service.stopService()
        self.assertEqual((service.state.failures, self.clock.getDelayedCalls()), (0, []))

    def test_files_that_cannot_be_removed(self) -> None:
        """A file of an attempt that cannot be removed does not end the checks."""
        service = self.start(SITE, self.site)
        service._store.new_file.mkdir()
        self.site.problem = "unreachable"
        self.clock.advance(CHECK_SECONDS)
        self.names()
        self.clock.advance(MIN_BACK_OFF)
        self.assertEqual(self.names(), [SITE])
        self.assertTrue(any("not removed: Is a directory" in line for line in self.logged))

    def test_unwritable_cache(self) -> None:
        """Without a writable cache directory, the planning is temporary, which is logged."""
        self.cache.write_bytes(b"")
        service = self.start(SITE, self.site)
        self.assertEqual(len(self.used), 1)
        self.assertIn("no writable cache directory", self.logged[0])
        self.assertNotIn(str(self.cache), str(service._store.directory))


class PathTests(ServiceTestCase):
    """A file or a directory."""

    def test_failure_of_the_compiler_is_repeated_with_back_off(self) -> None:
        """A file that could not be compiled is not compiled each minute, since that may take minutes."""
        path = temporary_directory(self) / "gtfs.zip"
        path.write_bytes(gtfs())
        write = mock.Mock(side_effect=OSError(ENOSPC, "No space left on device"))
        with mock.patch.object(layout, "write", write):
            self.start(str(path))
            for n, pause in enumerate((MIN_BACK_OFF, 2 * MIN_BACK_OFF), 2):
                self.clock.advance(pause - 1)
                self.assertEqual(write.call_count, n - 1)
                self.clock.advance(1)
                self.assertEqual(write.call_count, n)
        self.clock.advance(4 * MIN_BACK_OFF)
        self.assertEqual(len(self.used), 1)

    def test_file(self) -> None:
        """A file is compiled at the start unless it is stored, and again when it has changed."""
        path = temporary_directory(self) / "x"
        path.write_bytes(gtfs())
        self.start(str(path)).stopService()
        self.assertEqual(len(self.used), 1)
        compiled_at = self.used[0].header.published
        self.start(str(path))
        self.assertEqual([planning.header.published for planning in self.used], [compiled_at] * 2)
        path.write_bytes(gtfs(5))
        self.clock.advance(SCAN_SECONDS)
        self.assertEqual([planning.n_stops for planning in self.used], [4, 4, 5])

    def test_directory(self) -> None:
        """Of a directory the newest file by name is used; one without files is a problem until there is one."""
        directory = temporary_directory(self)
        service = self.start(str(directory))
        self.assertIn("contains neither", service.problem)
        for day in (TODAY - timedelta(1), TODAY, TODAY - timedelta(2)):
            (directory / name_of(day)).write_bytes(gtfs(1 + day.day % 5, day))
        self.clock.advance(SCAN_SECONDS)
        self.assertEqual([planning.header.name for planning in self.used], [name_of(TODAY)])

    def test_missing_file(self) -> None:
        """A missing file is a problem, which is logged once."""
        service = self.start("/nonexistent/gtfs.zip")
        self.clock.pump([SCAN_SECONDS] * 5)
        self.assertEqual(service.problem, "/nonexistent/gtfs.zip: No such file or directory")
        self.assertEqual(len([line for line in self.logged if "No such" in line]), 1)


class StoreTests(SynchronousTestCase):
    """The cache directory."""

    def test_cache_directory(self) -> None:
        """It is that of systemd, of XDG_CACHE_HOME if that is absolute, or of the home directory."""
        home = Path("/home/x")
        cases: tuple[tuple[Mapping[str, str], str], ...] = (
            ({"CACHE_DIRECTORY": "/var/cache/govi-cache:/other"}, "/var/cache/govi-cache"),
            ({"XDG_CACHE_HOME": "/tmp/c"}, "/tmp/c/govi-cache"),
            ({"XDG_CACHE_HOME": "c"}, "/home/x/.cache/govi-cache"),
            ({}, "/home/x/.cache/govi-cache"),
        )
        for environment, expected in cases:
            self.assertEqual(cache_directory(environment, home), Path(expected))

    def test_unfinished_files(self) -> None:
        """Files of a process that was killed are removed, those of one at work are not."""
        store = PlanningStore(temporary_directory(self) / "x", "x")
        store.open(NOW)
        old, new = store.directory / "gtfs.new.1.zip", store.directory / "planning.new.2"
        for path, time in ((old, NOW - 7200), (new, NOW - 60)):
            path.write_bytes(b"")
            os.utime(path, (time, time))
        store.open(NOW)
        self.assertEqual((old.exists(), new.exists()), (False, True))


class IndexTests(SynchronousTestCase):
    """Reading an index."""

    def test_links(self) -> None:
        """Links to dated files of the same site are read, in any form of HTML, the newest first."""
        html = """<A HREF='gtfs-kv7-20260101.zip'>x</A> <a class=y href=/other/gtfs-kv7-20251231.zip?a=1&amp;b=2>
            <a href="gtfs-kv7-20261331.zip"> <a href="gtfs-kv7-latest.zip"> <a href="../"> <a href="?C=M;O=D">
            <a href="https://evil.example/gtfs-kv7-20260103.zip"> <a href="file:///gtfs-kv7-20260104.zip">
            gtfs-kv7-20260105.zip"""
        files = read_index(html, "https://gtfs.example/govi/")
        self.assertEqual(
            [file.url for file in files],
            [
                "https://gtfs.example/govi/gtfs-kv7-20260101.zip",
                "https://gtfs.example/other/gtfs-kv7-20251231.zip?a=1&b=2",
            ],
        )
