"""Measures govi-stats: makes a log of so many megabytes, and tells the time and memory that reading it takes.

    python bench/stats.py [--megabytes 1000] [--log FILE] [--html FILE]

The log has a week of connections as govi-cache writes them: most with one request, hits for the most part, all of the
country's stops, and a bad hour of the gateway in each day. It is made in a temporary folder unless --log names where.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

BEGIN = datetime(2026, 11, 16, tzinfo=UTC)
DAYS = 7
STOPS = 60_000


def request(chance: random.Random, hour: int) -> dict[str, object]:
    """Make one request of an hour of the day."""
    code = 10_000_000 + 10 * min(STOPS - 1, int(chance.paretovariate(0.5)))
    path, status, cache, wait = f"/kv55/{code}", 200, "hit", None
    what = chance.random()
    if what < 0.02:
        path, status, cache = f"/{chance.choice(['wp-login.php', 'admin', '.env'])}", 404, "none"
    elif what < 0.12:
        cache, wait = chance.choice(["miss", "miss", "joined"]), 120 * chance.lognormvariate(0, 0.5)
        if hour == 17 and chance.random() < 0.3:
            status, wait = 504, 10_000 + chance.random() * 3
    elif what < 0.14:
        cache = "stale"
    elif what < 0.2:
        status = 304
    phases = {name: round(chance.lognormvariate(-3, 0.6), 3) for name in ("receive", "parse", "lookup")}
    if wait is not None:
        phases["wait"] = round(wait, 3)
    phases |= {name: round(chance.lognormvariate(-3, 0.6), 3) for name in ("render", "send")}
    size = 4321 if status == 200 else 0
    about = {"module": "kv55", "stop": str(code)} if path.startswith("/kv55/") else {}
    asked = {"method": "GET", "path": path, **about}
    return {**asked, "status": status, "bytes": size, "cache": cache, "phases": phases}


def make(path: Path, size: int) -> None:
    """Write a log of about so many bytes."""
    chance = random.Random(1)
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for hour in range(DAYS * 24):
            share = size * (hour + 1) // (DAYS * 24)
            while file.tell() < share:
                for _ in range(200):
                    moment = BEGIN + timedelta(hours=hour, seconds=chance.random() * 3600)
                    requests = [request(chance, hour % 24) for _ in range(1 if chance.random() < 0.8 else 5)]
                    line = {
                        "time": moment.isoformat(timespec="milliseconds"),
                        "client": "192.0.2.0/24",
                        "duration": round(chance.expovariate(0.01), 3),
                        "end": chance.choice(["client", "server"]),
                        "requests": requests,
                    }
                    file.write(encode(line) + b"\n")


def main() -> None:
    """Make the log, read it, and tell what that took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--log", type=Path, help="keep the log here, or take the one that is there")
    parser.add_argument("--html", help="have the page written, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = options.log or Path(folder, "statistics.log")
        if not log.exists():
            make(log, options.megabytes * 1_000_000)
        command = "import sys; from govi_server.command.stats import main; main()"
        page = ["--html", options.html] if options.html else []
        began = time.monotonic()
        child = subprocess.Popen([sys.executable, "-c", command, *page, str(log)])
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - began
        size = log.stat().st_size / 1e6
    print(
        f"\n{size:,.0f} MB in {took:.1f} s, {size / took:.1f} MB/s, at most {usage.ru_maxrss / 1024:.0f} MB of memory"
    )
    sys.exit(child.returncode)


if __name__ == "__main__":
    main()
