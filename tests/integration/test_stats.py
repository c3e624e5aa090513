"""Tests of `govi-cache stats` as a process."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

from tests.statistics.logs import line, request

COMMAND = [sys.executable, "-c", "from govi_server.command.main import main; main()", "stats"]


def stats(*arguments: object, data: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command with these arguments. data: its stdin."""
    text = None if data is None else data.decode("latin-1")
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, encoding="latin-1", timeout=60, check=False)


def test_rotated_logs_are_read_in_any_order(tmp_path: Path) -> None:
    """Rotated and compressed logs may be in any order; a truncated last line counts as bad."""
    parts = [
        b"".join(line(request(), time=f"2026-11-{day}T12:{minute:02}:00Z") + b"\n" for minute in range(20))
        for day in (21, 22, 23)
    ]
    logs = [tmp_path / name for name in ("statistics.log", "statistics.log.1", "statistics.log.2.gz")]
    logs[0].write_bytes(parts[2] + parts[2][:50])
    logs[1].write_bytes(parts[1])
    logs[2].write_bytes(gzip.compress(parts[0]))
    process = stats("--json", *reversed(logs))
    assert (process.returncode, process.stderr) == (0, "")
    report = json.loads(process.stdout)
    assert report["requests"] == 60
    assert report["lines"] == {"counted": 60, "outside": 0, "bad": 1}
    assert report["from"].startswith("2026-11-21T13:00")
    one_day = stats("--json", "--since", "2026-11-22", "--until", "2026-11-23", *logs)
    assert json.loads(one_day.stdout)["requests"] == 20


def test_unreadable_file_is_skipped(tmp_path: Path) -> None:
    """The text and HTML reports cover the readable files; the exit status is 1 if a file is unreadable."""
    page = tmp_path / "page.html"
    process = stats("--html", page, tmp_path / "absent", "-", data=gzip.compress(line()))
    assert process.returncode == 1
    assert process.stderr == f"govi-cache stats: cannot read {tmp_path / 'absent'}: No such file or directory\n"
    assert "Responses by status" in process.stdout
    assert page.read_text().count("<svg") > 5


def test_no_readable_file(tmp_path: Path) -> None:
    """If no file is readable, the command prints an error and no report."""
    process = stats(tmp_path / "absent")
    assert (process.returncode, process.stdout, process.stderr.count("\n")) == (1, "", 1)


def test_invalid_moment_is_reported_in_one_line(tmp_path: Path) -> None:
    """The error of an invalid moment is one line; the exit status is 2."""
    process = stats("--since", "soon", tmp_path)
    assert (process.returncode, process.stdout, process.stderr.count("\n")) == (2, "", 1)


def test_closed_stdout_ends_the_command(tmp_path: Path) -> None:
    """If stdout is closed, as with `| head`, the command exits without a traceback."""
    log = tmp_path / "log"
    log.write_bytes(line())
    child = subprocess.Popen([*COMMAND, log], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait(30) == 1
