"""Measures the time and the memory of `govi-cache stats` for a log of so many megabytes.

    python bench/stats.py [--megabytes 1000] [--log FILE] [--html FILE]

The log has a week of connections as govi-cache writes them: mostly with one request, mostly hits, for as many stops
as the Netherlands have, with one bad hour of the gateway per day. It is temporary unless --log names a file.
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

START = datetime(2026, 11, 16, tzinfo=UTC)
DAYS = 7
STOPS = 60_000


def request(rng: random.Random, hour: int) -> dict[str, object]:
    """Return a request in an hour of the day."""
    code = 10_000_000 + 10 * min(STOPS - 1, int(rng.paretovariate(0.5)))
    path, status, cache, wait = f"/kv55/{code}", 200, "hit", None
    kind = rng.random()
    if kind < 0.02:
        path, status, cache = f"/{rng.choice(['wp-login.php', 'admin', '.env'])}", 404, "none"
    elif kind < 0.12:
        cache, wait = rng.choice(["miss", "miss", "joined"]), 120 * rng.lognormvariate(0, 0.5)
        if hour == 17 and rng.random() < 0.3:
            status, wait = 504, 10_000 + rng.random() * 3
    elif kind < 0.14:
        cache = "stale"
    elif kind < 0.2:
        status = 304
    phases = {name: round(rng.lognormvariate(-3, 0.6), 3) for name in ("receive", "parse", "lookup")}
    if wait is not None:
        phases["wait"] = round(wait, 3)
    phases |= {name: round(rng.lognormvariate(-3, 0.6), 3) for name in ("render", "send")}
    size = 4321 if status == 200 else 0
    fields = {"module": "kv55", "stop": str(code)} if path.startswith("/kv55/") else {}
    fields = {"method": "GET", "path": path, **fields}
    return {**fields, "status": status, "bytes": size, "cache": cache, "phases": phases}


def write_log(path: Path, size: int) -> None:
    """Write a log of about so many bytes."""
    rng = random.Random(1)
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for hour in range(DAYS * 24):
            share = size * (hour + 1) // (DAYS * 24)
            while file.tell() < share:
                for _ in range(200):
                    moment = START + timedelta(hours=hour, seconds=rng.random() * 3600)
                    requests = [request(rng, hour % 24) for _ in range(1 if rng.random() < 0.8 else 5)]
                    line = {
                        "time": moment.isoformat(timespec="milliseconds"),
                        "client": "192.0.2.0/24",
                        "duration": round(rng.expovariate(0.01), 3),
                        "end": rng.choice(["client", "server"]),
                        "requests": requests,
                    }
                    file.write(encode(line) + b"\n")


def main() -> None:
    """Write the log, run `govi-cache stats`, and report its time and memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--log", type=Path, help="file of the log; an existing one is used")
    parser.add_argument("--html", help="also write the HTML report to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = options.log or Path(folder, "statistics.log")
        if not log.exists():
            write_log(log, options.megabytes * 1_000_000)
        command = "import sys; from govi_server.command.stats import stats; stats()"
        page = ["--html", options.html] if options.html else []
        start = time.monotonic()
        child = subprocess.Popen([sys.executable, "-c", command, *page, str(log)])
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        duration = time.monotonic() - start
        size = log.stat().st_size / 1e6
    memory = usage.ru_maxrss / 1024
    print(f"\n{size:,.0f} MB in {duration:.1f} s, {size / duration:.1f} MB/s, at most {memory:.0f} MB of memory")
    sys.exit(child.returncode)


if __name__ == "__main__":
    main()
