"""Measures the cost and the throughput of worker processes: make bench-scale.

    python bench/scale.py [--quick] [--write FILE.md]

The same program runs with 0, 1 and 2 workers, each with its statistics log, and each is loaded in turn, round by
round, so that noise affects all equally. Costs are the processor time of all its processes, user and system, on the
first core, loaded from the last one; results are medians of the rounds, and medians of the ratios within a round. For
the throughput, program and load share all cores, with a thread of the load for each. Requires wrk (apt install wrk)
and two cores.
"""

import argparse
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from hits import DEMO, HIT, with_gateway
from load import Load, raise_file_limit, request_each, wrk
from peers import CORES, FIRST_PORT, Running, govi_cache
from report import Report

WORKERS = (0, 1, 2)

CONNECTIONS = 100


def programs(running: ExitStack, folder: Path, cores: Sequence[int]) -> list[Running]:
    """Start the program with each number of workers."""
    return [
        running.enter_context(
            govi_cache(
                folder, FIRST_PORT + 10 * n, f"--workers={n}", f"--statistics={folder / f'{n}.log'}", path=DEMO,
                name=f"{n} workers", cores=cores,
            )
        )
        for n in WORKERS
    ]  # fmt: skip


def warm_up(servers: Sequence[Running]) -> None:
    """Let all workers of the servers have the board in memory."""
    for server in servers:
        wrk(server, DEMO, 1)


def costs(report: Report, folder: Path, n: int, seconds: float) -> None:
    """Measure the processor time of a hit, and the part of it that the main process has."""
    loads: dict[str, list[Load]] = {}
    shares: dict[str, list[float]] = {}
    with ExitStack() as running:
        servers = programs(running, folder, CORES[:1])
        warm_up(servers)
        for _ in range(n):
            for server in servers:
                before = server.processes()
                loads.setdefault(server.name, []).append(load := wrk(server, DEMO, seconds))
                main = server.processes()[server.process.pid] - before[server.process.pid]
                shares.setdefault(server.name, []).append(main / load.used)
        sizes = [[Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in s.processes()] for s in servers]
    rows: list[tuple[str, ...]] = []
    for name, own in loads.items():
        ratio = statistics.median(a.cost / b.cost for a, b in zip(own, loads["0 workers"], strict=True))
        cost, least = statistics.median(load.cost for load in own), min(load.cost for load in own)
        rows.append(
            (
                name,
                f"{cost * 1e6:.1f}",
                f"{least * 1e6:.1f}",
                f"{ratio:.2f}",
                f"{statistics.median(shares[name]):.0%}",
            )
        )
    head = ("", "us/response", "least", "to 0 workers", "of it in the main process")
    report.table("Hits: processor time of all processes, 50 persistent connections", head, rows)
    page = os.sysconf("SC_PAGE_SIZE")
    memory = [
        (s.name, *(f"{int(pages) * page / 1e6:.0f} MB" for pages in own))
        for s, own in zip(servers, sizes, strict=True)
    ]
    rows = [(*row, *("-" for _ in range(1 + len(WORKERS) - len(row)))) for row in memory]
    report.table("Resident memory after this load", ("", "main process", "worker 1", "worker 2"), rows)


def throughput(report: Report, folder: Path, n: int, seconds: float) -> None:
    """Measure the rate of hits when the program and the load share all cores, and how many of these each uses."""
    rates: dict[str, list[float]] = {}
    used: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as running:
        servers = programs(running, folder, CORES)
        warm_up(servers)
        for _ in range(n):
            for server in servers:
                rate, *cores = _rate_and_cores(server, seconds)
                rates.setdefault(server.name, []).append(rate)
                used.setdefault(server.name, []).append((cores[0], cores[1]))
    rows = [
        (
            name,
            f"{statistics.median(own):,.0f}",
            f"{max(own):,.0f}",
            f"{statistics.median(a / b for a, b in zip(own, rates['0 workers'], strict=True)):.2f}",
            *(f"{statistics.median(cores[i] for cores in used[name]):.2f}" for i in range(2)),
        )
        for name, own in rates.items()
    ]
    head = ("", "responses/s", "most", "to 0 workers", "cores used by the program", "by the load")
    report.table(f"Hits: throughput, {CONNECTIONS} connections, program and load on {len(CORES)} cores", head, rows)


def _rate_and_cores(server: Running, seconds: float) -> tuple[float, float, float]:
    """Load a server; return the responses per second, and the cores that it and the load use."""
    command = [
        "wrk",
        f"-t{len(CORES)}",
        f"-c{CONNECTIONS}",
        f"-d{seconds:.0f}s",
        f"http://127.0.0.1:{server.port}{DEMO}",
    ]
    began, before, load_before = time.perf_counter(), server.cpu(), _cpu_of_children()
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    elapsed = time.perf_counter() - began
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(output)
    rate = float(output.partition("Requests/sec:")[2].split()[0])
    return rate, (server.cpu() - before) / elapsed, (_cpu_of_children() - load_before) / elapsed


def _cpu_of_children() -> float:
    """Return the processor seconds of the processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def misses(report: Report, folder: Path, n: int) -> None:
    """Measure misses one after the other, of a gateway without a delay, on the first core."""
    waits: dict[int, list[float]] = {}
    used: dict[int, list[float]] = {}
    for first in range(0, 3 * n, n):
        for workers in WORKERS:
            with ExitStack() as running:
                server, _ = with_gateway(running, folder, 0.0, HIT, f"--workers={workers}")
                paths = [f"/kv55/1{stop:05}020" for stop in range(first, first + n)]
                request_each(server.port, [HIT] * 10)
                before, began = server.cpu(), time.perf_counter()
                request_each(server.port, paths)
                waits.setdefault(workers, []).append((time.perf_counter() - began) / n)
                used.setdefault(workers, []).append((server.cpu() - before) / n)
    rows = [
        (
            f"{workers} workers",
            f"{statistics.median(waits[workers]) * 1e3:.2f}",
            f"{statistics.median(used[workers]) * 1e6:,.0f}",
            f"{statistics.median((a - b) * 1e6 for a, b in zip(used[workers], used[0], strict=True)):,.0f}",
        )
        for workers in WORKERS
    ]
    head = ("", "ms from request to response", "processor time in us", "more than 0 workers, us")
    report.table("Misses of 20 departures, one after the other, with a gateway without a delay", head, rows)


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter measurements")
    parser.add_argument("--write", metavar="FILE", help="file that the report is written to")
    options = parser.parse_args()
    if len(CORES) < 2:
        parser.error("two cores are required, for servers and load")
    raise_file_limit()
    report = Report("Workers", "By `make bench-scale`.")
    with tempfile.TemporaryDirectory() as folder:
        n, seconds = (3, 1) if options.quick else (11, 2)
        costs(report, Path(folder), n, seconds)
        throughput(report, Path(folder), n, 2 * seconds)
        misses(report, Path(folder), 100 if options.quick else 500)
    if options.write:
        report.write(Path(options.write))


if __name__ == "__main__":
    main()
