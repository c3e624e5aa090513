"""Tests of govi_server.command.stats, in this process."""

import gzip
import io
import json
import os
import random
import stat
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from govi_server.command.stats import Progress, run, stats, write_file
from tests.statistics.logs import NOW, line, request


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ProgressTests(SynchronousTestCase):
    """The progress bar."""

    def test_bar_appears_after_a_second(self) -> None:
        """The bar appears after a second, changes at most five times a second, and is removed at the end."""
        now = [0.0]
        terminal = _Terminal()
        progress = Progress(terminal, 10_000_000, lambda: now[0])
        for moment in (0.5, 0.9, 2.0, 2.1):
            now[0] = moment
            progress.update(2_500_000)
        self.assertEqual(terminal.getvalue(), f"\r[{'#' * 8}{' ' * 22}]  25% of 10 MB, 6 s left\x1b[K")
        progress.clear()
        self.assertTrue(terminal.getvalue().endswith("\r\x1b[K"))

    def test_progress_of_stdin_is_an_amount(self) -> None:
        """For stdin the progress is the amount of data read."""
        now = [0.0]
        terminal = _Terminal()
        progress = Progress(terminal, None, lambda: now[0])
        now[0] = 2.0
        progress.update(2_500_000)
        self.assertIn("2 MB read", terminal.getvalue())

    def test_no_bar_without_a_terminal(self) -> None:
        """The bar is not shown if stderr is not a terminal."""
        now = [0.0]
        file = io.StringIO()
        progress = Progress(file, 1, lambda: now[0])
        now[0] = 9.0
        progress.update(1)
        progress.clear()
        self.assertEqual(file.getvalue(), "")


class FolderTestCase(SynchronousTestCase):
    """A test case that has a temporary folder."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name: str, data: bytes) -> Path:
        """Write a file; return its path."""
        path = self.folder / name
        path.write_bytes(data)
        return path


class RunTests(FolderTestCase):
    """The command."""

    def run_command(self, *arguments: object) -> tuple[int, str, str]:
        """Run the command; return its exit status, stdout and stderr."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            context = stats.make_context("stats", [str(argument) for argument in arguments])
            status = run(**context.params, now=NOW)
        return status, out.getvalue(), err.getvalue()

    def test_gzip_is_recognized(self) -> None:
        """Files may be gzip with any name and several members, and may lack the last line end."""
        data = line() + b"\n"
        files = [
            self.write("statistics.log", data * 2 + line()),
            self.write("statistics.log.1", gzip.compress(data) + gzip.compress(data)),
            self.write("other", b""),
        ]
        status, out, err = self.run_command("--json", *files)
        self.assertEqual((status, err, json.loads(out)["requests"]), (0, "", 5))

    def test_unreadable_files_are_named(self) -> None:
        """Each unreadable file is named in one line; other files, and readable parts, are counted."""
        data = b"".join(line(request("tpc", f"{random.random()}")) + b"\n" for _ in range(20_000))
        compressed = gzip.compress(data)
        cut = self.write("cut.gz", compressed[: len(compressed) // 2])
        garbled = self.write("garbled.gz", compressed[:20] + b"\xff" * 50)
        good = self.write("good", line())
        status, out, err = self.run_command("--json", self.folder / "absent", cut, garbled, self.folder, "a\0b", good)
        self.assertEqual((status, err.count("\n")), (1, 5))
        self.assertIn(f"cannot read {cut}: unexpected end of the gzip data\n", err)
        self.assertIn("absent: No such file or directory\n", err)
        report = json.loads(out)
        self.assertGreater(report["lines"]["counted"], 5000)
        self.assertEqual(report["modules"]["kv55"]["requests"], 1)

    def test_hyphen_is_stdin(self) -> None:
        """`-` is stdin, plain or gzip."""
        for data in (line(), gzip.compress(line())):
            with patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data))):
                status, out, _ = self.run_command("--json", "-")
            self.assertEqual((status, json.loads(out)["requests"]), (0, 1))

    def test_no_line_matches(self) -> None:
        """If no line matches, stderr has the counts of bad lines and lines outside the period."""
        log = self.write("log", line() + b"\nbroken\n")
        status, out, err = self.run_command("--since", "1h", log)
        self.assertEqual((status, err), (0, "govi-cache stats: no line matches: 1 bad, 1 outside the period\n"))
        self.assertIn("Requests     0", out)

    def test_invalid_moment_is_reported_in_one_line(self) -> None:
        """The error of an invalid moment is one line that names the option; the exit status is 2."""
        for option in ("--since", "--until"):
            status, out, err = self.run_command(option, "soon", self.write("log", line()))
            self.assertEqual((status, out, err.count("\n")), (2, "", 1))
            self.assertTrue(err.startswith(f"govi-cache stats: {option}: invalid moment 'soon'"), err)

    def test_html_report_is_written(self) -> None:
        """The HTML report is written in addition to the text; if that fails, the exit status is 1."""
        log = self.write("log", line())
        page = self.folder / "page.html"
        status, out, err = self.run_command("--html", page, log)
        self.assertEqual((status, err), (0, ""))
        self.assertIn("Phases, in ms", out)
        self.assertTrue(page.read_text().startswith("<!DOCTYPE html>"))
        absent = self.folder / "absent" / "page.html"
        status, _, err = self.run_command("--html", absent, log)
        self.assertEqual((status, err), (1, f"govi-cache stats: cannot write {absent}: No such file or directory\n"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["log", "page.html"])


class WriteFileTests(FolderTestCase):
    """Writing a report."""

    def test_file_is_replaced_atomically(self) -> None:
        """An existing file is replaced, not overwritten, with the permissions of a new file."""
        path = self.write("page.html", b"old")
        opened = path.open()
        self.addCleanup(opened.close)
        write_file(str(path), "new")
        self.assertEqual((opened.read(), path.read_text()), ("old", "new"))
        mask = os.umask(0)
        os.umask(mask)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o666 & ~mask)

    def test_failure_leaves_no_temporary_file(self) -> None:
        """A file that cannot be written leaves no temporary file."""
        path = self.folder / "page.html"
        path.mkdir()
        self.assertRaises(IsADirectoryError, write_file, str(path), "new")
        self.assertEqual(list(self.folder.iterdir()), [path])
        self.assertRaises(ValueError, write_file, "a\0b", "new")
