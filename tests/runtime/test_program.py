"""The root of a program's services: its log file, and signals."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.application.service import Application
from twisted.logger import ILogObserver, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError
from govi_server.runtime.log_file import LogFile
from govi_server.runtime.program import Program, open_log_file


class FakeReactor:
    """Calls functions at once."""

    def callFromThread(self, function: Callable[[], object]) -> None:
        function()


class ProgramTests(SynchronousTestCase):
    """Program."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "twistd.log"

    def start(self, log_file: LogFile | None) -> Program:
        program = Program(FakeReactor(), log_file)
        program.startService()
        self.addCleanup(program.stopService)
        return program

    def test_application_logs_to_the_file(self) -> None:
        """twistd logs to the file, if there is one."""
        log_file = LogFile(str(self.path))
        self.addCleanup(log_file.close)
        application: Any = Application("test")
        Program(FakeReactor(), log_file).setServiceParent(application)
        application.getComponent(ILogObserver)({"log_format": "hello", "log_time": 0})
        self.assertIn("hello\n", self.path.read_text())
        application = Application("test")
        Program(FakeReactor()).setServiceParent(application)
        self.assertIsNone(application.getComponent(ILogObserver, None))

    def test_hangup_reopens_the_logs(self) -> None:
        """SIGHUP reopens all logs, also if one fails; without a log it does nothing."""
        reopened: list[str] = []

        class Log:
            def __init__(self, name: str) -> None:
                self.name = name

            def reopen(self) -> None:
                reopened.append(self.name)
                raise OSError("full")

        program = self.start(None)
        os.kill(os.getpid(), signal.SIGHUP)
        program.logs += [Log("a"), Log("b")]
        with capturedLogs() as events:
            os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(reopened, ["a", "b"])
        self.assertEqual([formatEvent(event) for event in events], ["Log file cannot be reopened: full"] * 2)

    def test_sigusr1_rotates_the_file(self) -> None:
        """SIGUSR1 rotates twistd's log."""
        log_file = LogFile(str(self.path))
        self.addCleanup(log_file.close)
        log_file.write("a\n")
        self.start(log_file)
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual(self.path.with_name("twistd.log.1").read_text(), "a\n")
        self.assertEqual(self.path.read_text(), "")

    def test_handlers_are_restored(self) -> None:
        """The previous handlers of the signals are restored."""
        previous = signal.getsignal(signal.SIGHUP)
        program = Program(FakeReactor())
        program.startService()
        self.assertNotEqual(signal.getsignal(signal.SIGHUP), previous)
        self.successResultOf(program.stopService())
        self.assertEqual(signal.getsignal(signal.SIGHUP), previous)

    def test_log_file_of_options(self) -> None:
        """The file of --logfile is opened; without it, only a daemon logs to a file."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.path.parent)
        for options, expected in [
            (None, False),
            ({"logfile": "-", "nodaemon": True}, False),
            ({"logfile": "-", "nodaemon": False}, False),
            ({"logfile": None, "nodaemon": True}, False),
            ({"logfile": None, "nodaemon": False}, True),
            ({"logfile": "twistd.log", "nodaemon": True}, True),
            ({"logfile": str(self.path), "nodaemon": False}, True),
            ({"logfile": str(self.path), "nodaemon": False, "syslog": True}, False),
            ({"logfile": str(self.path), "nodaemon": False, "logger": "x"}, False),
        ]:
            log_file = open_log_file(options)
            self.assertEqual(self.path.exists(), expected, options)
            if log_file is not None:
                log_file.close()
                self.path.unlink()

    def test_unwritable_log_file_is_reported(self) -> None:
        """The error of a file that cannot be opened names the option and the file."""
        for path, reason in [("/nonexistent/x", "No such file or directory"), ("x\0", "embedded null ")]:
            with self.assertRaisesRegex(StartupError, f"--logfile: cannot write .*: {reason}"):
                open_log_file({"logfile": path, "nodaemon": True})
