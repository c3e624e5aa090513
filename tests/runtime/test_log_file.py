"""Log files that others rotate or write, too."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.log_file import LogFile

WRITER = """
import sys
from govi_server.runtime.log_file import LogFile
log = LogFile(sys.argv[1], rotate_bytes=20_000, keep_files=1000)
for i in range(500):
    log.write(sys.argv[2] * (1 + i % 300) + "\\n")
"""


class LogFileTests(SynchronousTestCase):
    """LogFile."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = self.directory / "x.log"

    def open(self, rotate_bytes: int | None = None, keep_files: int | None = None) -> LogFile:
        log = LogFile(str(self.path), rotate_bytes, keep_files)
        self.addCleanup(log.close)
        return log

    def contents(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.directory.iterdir()}

    def test_lines_are_appended(self) -> None:
        """Lines follow those that the file has, and those of other writers; any text can be written."""
        self.path.write_text("a\n")
        first, second = self.open(), self.open()
        first.write("b\n")
        second.write("c é \udc80\n")
        first.write("d\n")
        self.assertEqual(self.path.read_text("utf-8"), "a\nb\nc é \\udc80\nd\n")

    def test_truncated_file_has_no_nul_bytes(self) -> None:
        """After another program copied and truncated the file, lines are at its beginning."""
        log = self.open()
        log.write("a\n" * 100)
        os.truncate(self.path, 0)
        log.write("b\n")
        self.assertEqual(self.path.read_text(), "b\n")

    def test_renamed_file_is_followed(self) -> None:
        """After another program renamed the file, the next line is in a new one with the same permissions."""
        log = self.open()
        self.path.chmod(0o640)
        log.write("a\n")
        self.path.rename(self.directory / "x.log.1")
        log.write("b\n")
        self.assertEqual(self.contents(), {"x.log.1": "a\n", "x.log": "b\n"})
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)

    def test_created_file_is_followed(self) -> None:
        """After another program renamed the file and created a new one, the next line is in that."""
        log = self.open()
        log.write("a\n")
        self.path.rename(self.directory / "x.log.1")
        self.path.write_text("new\n")
        log.write("b\n")
        self.assertEqual(self.contents(), {"x.log.1": "a\n", "x.log": "new\nb\n"})

    def test_removed_file_is_created_again(self) -> None:
        """A removed file is created again."""
        log = self.open()
        self.path.unlink()
        log.write("a\n")
        self.assertEqual(self.contents(), {"x.log": "a\n"})

    def test_reopening_closes_the_renamed_file(self) -> None:
        """Reopening closes a renamed file and creates the new one."""
        log = self.open()
        log.write("a\n")
        self.path.rename(self.directory / "x.log.1")
        log.reopen()
        self.assertEqual(self.contents(), {"x.log.1": "a\n", "x.log": ""})

    def test_lines_go_to_the_renamed_file_if_none_can_be_created(self) -> None:
        """While no file can be created, lines are appended to the renamed one; to a removed one is an error."""
        log = self.open()
        log.write("a\n")
        self.path.rename(self.directory / "x.log.1")
        with patch("os.open", side_effect=OSError(24, "Too many open files")):
            log.write("b\n")
            self.assertEqual(self.contents(), {"x.log.1": "a\nb\n"})
            (self.directory / "x.log.1").unlink()
            self.assertRaises(OSError, log.write, "c\n")
        log.write("d\n")
        self.assertEqual(self.contents(), {"x.log": "d\n"})

    def test_full_file_is_rotated(self) -> None:
        """A full file is renamed, and only the configured number of old files remains."""
        (self.directory / "x.log.20").touch()
        (self.directory / "x.log.gz").touch()
        log = self.open(2, 2)
        for letter in "abcd":
            log.write(f"{letter}\n")
        self.assertEqual(self.contents(), {"x.log": "d\n", "x.log.1": "c\n", "x.log.2": "b\n", "x.log.gz": ""})

    def test_file_that_cannot_be_renamed_is_continued(self) -> None:
        """A full file that cannot be renamed is continued."""
        log = self.open(2, 2)
        with patch.object(Path, "rename", side_effect=PermissionError):
            for letter in "abc":
                log.write(f"{letter}\n")
        self.assertEqual(self.contents(), {"x.log": "a\nb\nc\n"})
        log.write("d\n")
        self.assertEqual(self.contents(), {"x.log": "d\n", "x.log.1": "a\nb\nc\n"})

    def test_two_processes_write_and_rotate_one_file(self) -> None:
        """All lines of processes that write and rotate one file are complete."""
        processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(self.path), letter]) for letter in "abc"]
        for process in processes:
            self.assertEqual(process.wait(60), 0)
        lines = [line for text in self.contents().values() for line in text.splitlines()]
        expected = [letter * (1 + i % 300) for letter in "abc" for i in range(500)]
        self.assertEqual(sorted(lines), sorted(expected))
