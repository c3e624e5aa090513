"""Log files that others rotate or write, too."""

import errno
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
for i in range(0, 500, 5):
    lines = "".join(sys.argv[2] * (1 + j % 300) + "\\n" for j in range(i, i + 5)).encode()
    assert log.append(lines) == len(lines)
"""

FULL_DISK = """
import resource, signal, sys
from govi_server.runtime.log_file import LogFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = LogFile(sys.argv[1])
lines = bytearray().join(b"%050d\\n" % i for i in range(100))
_, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit))
try:
    while lines:
        del lines[:log.append(lines)]
except OSError as error:
    print(error.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
while lines:
    del lines[:log.append(lines)]
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

    def test_files_of_other_programs_remain(self) -> None:
        """Files that another program has renamed are neither renamed nor removed, and do not prevent the rotation."""
        others = {"x.log.20260101": "", "x.log.01": "", "x.log.0": "", "x.log.\u0663": ""}
        for name in others:
            (self.directory / name).touch()
        log = self.open(2, 2)
        for letter in "ab":
            log.write(f"{letter}\n")
        self.assertEqual(self.contents(), {"x.log": "b\n", "x.log.1": "a\n", **others})

    def test_file_that_cannot_be_renamed_is_continued(self) -> None:
        """A full file that cannot be renamed is continued."""
        log = self.open(2, 2)
        with patch.object(Path, "rename", side_effect=PermissionError):
            for letter in "abc":
                log.write(f"{letter}\n")
        self.assertEqual(self.contents(), {"x.log": "a\nb\nc\n"})
        log.write("d\n")
        self.assertEqual(self.contents(), {"x.log": "d\n", "x.log.1": "a\nb\nc\n"})

    def test_lines_on_a_full_disk(self) -> None:
        """Lines that do not fit can be appended later; the one that was written in part is ended first."""
        program = [sys.executable, "-c", FULL_DISK, str(self.path)]
        output = subprocess.run(program, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout
        self.assertEqual(output, "File too large\n")
        lines = self.path.read_text().split("\n")
        self.assertEqual(lines.pop(19), "0" * 31)  # 19 lines of 51 bytes fit 1,000
        self.assertEqual(lines, [f"{i:050}" for i in range(100)] + [""])

    def test_disk_that_is_full_after_any_byte(self) -> None:
        """Each line is in the file once, wherever the disk was full: also between a line and its line feed."""
        lines, write = b"aa\nbb\ncc\n", os.write
        for size in range(1, len(lines)):
            log, rest = self.open(), bytearray(lines)

            def fill_disk(number: int, data: bytes, size: int = size) -> int:
                if os.fstat(number).st_size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return write(number, data[:size])

            with patch("os.write", fill_disk):
                del rest[: log.append(rest)]
            while rest:
                del rest[: log.append(rest)]
            log.append(b"dd\n")
            whole = [line for line in self.path.read_text().splitlines() if len(line) == 2]
            self.assertEqual(whole, ["aa", "bb", "cc", "dd"], f"full after {size} bytes")
            self.path.unlink()

    def append_in_part(self) -> LogFile:
        """Append a line and a half, after which the disk is full; return the log."""
        log, write = self.open(), os.write

        def fill_disk(number: int, data: bytes) -> int:
            if os.fstat(number).st_size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(number, data[:3])

        with patch("os.write", fill_disk):
            self.assertEqual(log.append(b"a\nbb\n"), 2)
            self.assertRaises(OSError, log.append, b"bb\n")
        return log

    def test_line_in_part_is_ended(self) -> None:
        """A line that was written in part is ended before the next one."""
        log = self.append_in_part()
        self.assertEqual(log.append(b"bb\n"), 3)
        self.assertEqual(self.path.read_text(), "a\nb\nbb\n")

    def test_line_in_part_of_an_earlier_process_is_ended(self) -> None:
        """A line that an earlier process wrote in part does not damage the next one."""
        self.path.write_text("a\nb")
        self.open().write("c\n")
        self.open().write("d\n")
        self.assertEqual(self.path.read_text(), "a\nb\nc\nd\n")

    def test_line_in_part_stays_in_a_renamed_file(self) -> None:
        """A new file does not begin with the end of a line that was written in part to the old one."""
        log = self.append_in_part()
        self.path.rename(self.directory / "x.log.1")
        self.assertEqual(log.append(b"bb\n"), 3)
        self.assertEqual(self.contents(), {"x.log.1": "a\nb", "x.log": "bb\n"})

    def test_two_processes_write_and_rotate_one_file(self) -> None:
        """All lines of processes that write and rotate one file are complete."""
        processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(self.path), letter]) for letter in "abc"]
        for process in processes:
            self.assertEqual(process.wait(60), 0)
        lines = [line for text in self.contents().values() for line in text.splitlines()]
        expected = [letter * (1 + i % 300) for letter in "abc" for i in range(500)]
        self.assertEqual(sorted(lines), sorted(expected))
