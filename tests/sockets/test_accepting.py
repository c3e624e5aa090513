"""Accepting connections as open files permit."""

import os
from typing import Any, cast
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError
from govi_server.sockets import accepting
from govi_server.sockets.accepting import (
    MAX_ACCEPTED_IN_TURN,
    MIN_CONNECTIONS,
    AcceptThrottle,
    count_open_files,
    file_limit,
    fit_connections,
)


class Files:
    """The open files of a process."""

    def __init__(self, limit: int, used: int) -> None:
        self.limit = limit
        self.used = used
        self.most_used = used


class Port:
    """A port at which connections wait; each that it accepts is an open file."""

    def __init__(self, files: Files, waiting: int) -> None:
        self.files = files
        self.waiting = waiting
        self.sessionno = 0
        self.numberAccepts = 100
        self.is_reading = True

    def doRead(self) -> None:
        accepted = min(self.waiting, self.numberAccepts)
        self.waiting -= accepted
        self.sessionno += accepted
        self.files.used += accepted
        self.files.most_used = max(self.files.most_used, self.files.used)
        self.numberAccepts = 120 if accepted == self.numberAccepts else max(1, accepted)

    def startReading(self) -> None:
        self.is_reading = True

    def stopReading(self) -> None:
        self.is_reading = False


class FilesTestCase(SynchronousTestCase):
    """Tests with a limit of open files."""

    def set_files(self, limit: int, used: int) -> Files:
        files = Files(limit, used)
        for name, value in [("file_limit", lambda: files.limit), ("count_open_files", lambda: files.used)]:
            patched = patch.object(accepting, name, value)
            patched.start()
            self.addCleanup(patched.stop)
        return files


class ThrottleTests(FilesTestCase):
    """AcceptThrottle."""

    def listen(self, files: Files, waiting: int, drops: bool = True) -> tuple[AcceptThrottle, Port, Clock]:
        clock, port = Clock(), Port(files, waiting)
        throttle = AcceptThrottle(clock, "server", drops)
        throttle.add(cast(Any, port))
        return throttle, port, clock

    def run_turns(self, throttle: AcceptThrottle, port: Port, turns: int = 1000) -> None:
        """Run turns of a reactor, which reads a port at which connections wait."""
        for _ in range(turns):
            if port.is_reading and port.waiting:
                throttle.accept(cast(Any, port), port.doRead)

    def test_all_connections_are_accepted_far_from_the_limit(self) -> None:
        """Far from the limit all waiting connections are accepted."""
        throttle, port, _ = self.listen(self.set_files(10_000, 40), 5000)
        self.run_turns(throttle, port)
        self.assertEqual((port.waiting, throttle.paused), (0, False))

    def test_connections_accepted_in_a_turn_are_bounded(self) -> None:
        """A port accepts few connections in a turn, however many wait."""
        throttle, port, _ = self.listen(self.set_files(10_000, 40), 5000)
        for turn in range(1, 4):
            self.run_turns(throttle, port, turns=1)
            self.assertEqual(port.sessionno, turn * MAX_ACCEPTED_IN_TURN)

    def test_spare_files_are_left(self) -> None:
        """An eighth of the limit is spare, at most 128 files; servers that drop connections use half of them."""
        for limit, used, spare in [(56, 36, 7), (64, 36, 8), (100, 36, 12), (1024, 36, 128), (16_384, 40, 128)]:
            for drops, left in [(False, spare), (True, spare // 2)]:
                files = self.set_files(limit, used)
                throttle, port, _ = self.listen(files, 20_000, drops)
                self.run_turns(throttle, port)
                self.assertTrue(throttle.paused and throttle.scarce)
                self.assertEqual(files.limit - files.most_used, left)

    def test_connections_are_accepted_one_by_one_from_spare_files(self) -> None:
        """When only spare files are left, one connection is accepted in a turn, so that one can be dropped for it."""
        files = self.set_files(64, 57)
        throttle, port, _ = self.listen(files, 100)
        for accepted in range(1, 50):
            self.run_turns(throttle, port, turns=1)
            self.assertEqual((port.sessionno, throttle.scarce, throttle.paused), (accepted, True, False))
            files.used = 57
        files.used = 40
        self.run_turns(throttle, port, turns=1)
        self.assertFalse(throttle.scarce)

    def test_accepting_resumes_when_files_are_closed(self) -> None:
        """Accepting resumes within a second after files were closed, with one log line of each kind."""
        files = self.set_files(64, 36)
        throttle, port, clock = self.listen(files, 100)
        with capturedLogs() as events:
            self.run_turns(throttle, port)
            clock.advance(0.5)
            files.used = 36
            clock.advance(0.5)
            self.assertTrue(port.is_reading)
            self.assertFalse(throttle.paused)
        self.assertEqual(
            [(event["log_level"], formatEvent(event)) for event in events],
            [
                (LogLevel.warn, "server: accepting paused (too many open files)"),
                (LogLevel.info, "server: accepting resumed"),
            ],
        )
        throttle.remove(cast(Any, port))
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_frequent_pauses_are_logged_once_a_minute(self) -> None:
        """Pauses that alternate with accepting are logged at most once a minute, with the number of omitted ones."""
        files = self.set_files(64, 36)
        throttle, port, clock = self.listen(files, 100_000)
        with capturedLogs() as events:
            for _ in range(61):
                self.run_turns(throttle, port)
                files.used = 36
                clock.advance(1)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "server: accepting paused (too many open files)",
                "server: accepting resumed",
                "server: accepting paused (too many open files) (and 59 more of this kind since the last such line)",
                "server: accepting resumed",
            ],
        )

    def test_a_connection_is_accepted_each_second_while_others_use_the_files(self) -> None:
        """While files stay in use, one connection is accepted each second, until half of those are left."""
        files = self.set_files(64, 60)
        throttle, port, clock = self.listen(files, 100)
        self.run_turns(throttle, port)
        self.assertEqual(port.sessionno, 0)
        for accepted in (1, 2, 2, 2):
            clock.advance(1)
            self.run_turns(throttle, port)
            self.assertEqual(port.sessionno, accepted)
        self.assertTrue(throttle.paused)
        files.used = 40
        clock.advance(1)
        self.assertFalse(throttle.paused)

    def test_stopped_port_is_not_resumed(self) -> None:
        """A port that was removed while accepting was paused is not read again."""
        files = self.set_files(64, 60)
        throttle, port, clock = self.listen(files, 1)
        self.run_turns(throttle, port)
        throttle.remove(cast(Any, port))
        files.used = 10
        clock.advance(10)
        self.assertFalse(port.is_reading)
        self.assertEqual(clock.getDelayedCalls(), [])


class LimitTests(FilesTestCase):
    """The number of connections that fit the limit of open files."""

    def fit(self, connections: int, limit: int, endpoints: int = 2) -> int:
        with patch.object(accepting, "_raise_limit", lambda target: min(target, limit)):
            return fit_connections(connections, endpoints)

    def test_connections_fit_the_limit(self) -> None:
        """Connections get all files but 1,536, or half of those that the program does not need."""
        for limit, expected in [(20_000, 10_000), (11_536, 10_000), (8_000, 6_464), (1024, 486), (100, 24), (60, 4)]:
            self.assertEqual(self.fit(10_000, limit), expected, limit)
        self.assertEqual(self.fit(2, 60), 2)

    def test_too_low_limit_is_reported(self) -> None:
        """A limit at which hardly any connection fits is an error that names a sufficient one."""
        for limit in (3, 20, 40, 59):
            with self.assertRaises(StartupError) as caught:
                self.fit(10_000, limit)
            self.assertIn(f"the limit of open files is {limit} (expected at least 60)", str(caught.exception))
        self.assertEqual(self.fit(10_000, 60), MIN_CONNECTIONS)

    def test_open_files_are_counted(self) -> None:
        """Open files are counted, also those above a free descriptor; without /proc at least those below it."""
        before = count_open_files()
        files = [os.dup(0) for _ in range(10)]
        self.assertEqual(count_open_files(), before + 10)
        os.close(files.pop(0))
        self.assertEqual(count_open_files(), before + 9)
        self.assertLess(count_open_files(), file_limit())
        for file in files:
            os.close(file)
        with patch("os.stat", side_effect=FileNotFoundError):
            self.assertGreaterEqual(count_open_files(), 3)
