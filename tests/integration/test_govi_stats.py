"""Tests of govi-stats as a process, on files as logrotate leaves them."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

from tests.statistics.test_report import line, request

COMMAND = [sys.executable, "-c", "from govi_server.statistics.report import main; main()"]


def stats(*arguments: object, data: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command; return its output and exit status."""
    text = None if data is None else data.decode("latin-1")
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, encoding="latin-1", timeout=30, check=False)


def test_rotated(tmp_path: Path) -> None:
    """Rotated and gzipped logs are read in any order, and a truncated last line is counted."""
    parts = [
        b"".join(line(request(), time=f"2026-11-{day}T12:{minute:02}:00Z") + b"\n" for minute in range(20))
        for day in (21, 22, 23)
    ]
    logs = [tmp_path / name for name in ("statistics.log", "statistics.log.1", "statistics.log.2.gz")]
    logs[0].write_bytes(parts[2] + parts[2][:50])
    logs[1].write_bytes(parts[1])
    logs[2].write_bytes(gzip.compress(parts[0]))
    completed = stats("--json", *reversed(logs))
    assert (completed.returncode, completed.stderr) == (0, "")
    summary = json.loads(completed.stdout)
    assert summary["requests"] == 60
    assert summary["lines"] == {"counted": 60, "outside": 0, "bad": 1}
    assert summary["from"].startswith("2026-11-21T13:00")
    one_day = stats("--json", "--since", "2026-11-22", "--until", "2026-11-23", *logs)
    assert json.loads(one_day.stdout)["requests"] == 20


def test_report_with_unreadable_file(tmp_path: Path) -> None:
    """Text and page cover the readable files; an unreadable one is one line, and exit status 1."""
    page = tmp_path / "page.html"
    completed = stats("--html", page, tmp_path / "absent", "-", data=gzip.compress(line()))
    assert completed.returncode == 1
    assert completed.stderr == f"govi-stats: cannot read {tmp_path / 'absent'}: No such file or directory\n"
    assert "Answers by status" in completed.stdout
    assert page.read_text().count("<svg") > 5


def test_nothing_to_read(tmp_path: Path) -> None:
    """Without a readable file there is one line of error, and no report."""
    completed = stats(tmp_path / "absent")
    assert (completed.returncode, completed.stdout, completed.stderr.count("\n")) == (1, "", 1)


def test_invalid_option(tmp_path: Path) -> None:
    """An invalid time is one line, and exit status 2."""
    completed = stats("--since", "soon", tmp_path)
    assert (completed.returncode, completed.stdout, completed.stderr.count("\n")) == (2, "", 1)


def test_closed_pipe(tmp_path: Path) -> None:
    """When its output is closed, as by `| head`, it ends without a traceback."""
    log = tmp_path / "log"
    log.write_bytes(line())
    child = subprocess.Popen([*COMMAND, log], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait(30) == 1
