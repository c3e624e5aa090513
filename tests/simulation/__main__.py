"""``make simulate``: run seeds, report what they find, and shrink it."""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from tests.simulation.world import Violation, World

REGRESSIONS = Path(__file__).with_name("regressions.txt")
SHRINK_SECONDS = 300.0
"""Processor time for finding the smallest set of faults."""


def run(seed: int, hours: float, faults: list[int] | None = None) -> tuple[World, Violation | None, str]:
    """Run a seed; return its world, what it found, and its line."""
    began = time.process_time()
    world = World(seed, hours, faults)
    violation = world.run()
    seconds = time.process_time() - began
    speed = (world.ended_at - world.begin) / seconds
    line = f"seed {seed}: {hours:.1f} h, hash {world.digest}, {world.n_events:,} events, {speed:.1f} x real time"
    return world, violation, line


def report(seed: int, hours: float, faults: list[int] | None, world: World, violation: Violation) -> None:
    """Print a failure, and the command that repeats it."""
    print("\n".join(world.trace))
    print(f"\nseed {seed}, {timedelta(seconds=int(violation.time))} after the beginning: {violation.oracle}")
    print(violation.text)
    chosen = "" if faults is None else f" FAULTS={','.join(map(str, faults)) or 'none'}"
    print(f"Replay: make simulate SEED={seed} HOURS={hours:g}{chosen}", flush=True)


def shrink(seed: int, hours: float, world: World, violation: Violation) -> list[int]:
    """Return a smallest set of faults with which the same rule is broken, as far as there is time."""
    limit = time.process_time() + SHRINK_SECONDS
    faults = [n for n in world.selected if world.faults[n].at < violation.time]

    def fails(chosen: list[int]) -> bool:
        gc.unfreeze()
        _, found, _ = run(seed, hours, chosen)
        return found is not None and found.oracle == violation.oracle

    size = len(faults)
    while size and time.process_time() < limit:
        for start in range(0, len(faults), size):
            rest = faults[:start] + faults[start + size :]
            if time.process_time() < limit and fails(rest):
                faults = rest
                break
        else:
            size //= 2
        size = min(size, len(faults))
    return faults


def run_one(seed: int, hours: float, faults: list[int] | None, shrinks: bool) -> int:
    """Run a seed, and if it fails also with ever fewer faults; return the exit status."""
    world, violation, line = run(seed, hours, faults)
    print(line, flush=True)
    if violation is None:
        return 0
    report(seed, hours, faults, world, violation)
    if shrinks and faults is None:
        smallest = shrink(seed, hours, world, violation)
        print(f"\nWith {len(smallest)} of {len(world.faults)} faults:")
        world, found, _ = run(seed, hours, smallest)
        if found is not None:
            print("\n".join(f"{world.faults[n].at:12.3f} {world.faults[n]}" for n in smallest))
            report(seed, hours, smallest, world, found)
    return 1


def run_many(seconds: float, hours: float, first: int) -> int:
    """Run the regressions and then ever more seeds, as many at once as there are processors; return the status."""
    queue = [line.split("#")[0].split() for line in REGRESSIONS.read_text("utf-8").splitlines()]
    jobs = [(int(job[0]), float(job[1])) for job in queue if job]
    began, status, seed, virtual = time.monotonic(), 0, first, 0.0
    running: list[tuple[subprocess.Popen[str], float]] = []
    while jobs or running or time.monotonic() - began < seconds:
        while len(running) < (os.cpu_count() or 1) and (jobs or time.monotonic() - began < seconds):
            if jobs:
                number, length = jobs.pop(0)
            else:
                number, length, seed = seed, hours, seed + 1
            command = [sys.executable, "-m", "tests.simulation", "--seed", str(number), "--hours", str(length)]
            running.append((subprocess.Popen(command, stdout=subprocess.PIPE, text=True), length))
        process, length = running.pop(0)
        output, _ = process.communicate()
        print(output, end="", flush=True)
        virtual += length
        status |= process.returncode != 0
    print(f"{virtual:g} virtual hours in {time.monotonic() - began:.0f} s: {'FAILED' if status else 'nothing found'}")
    return status


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="run only this one")
    parser.add_argument("--hours", type=float, default=1.0, help="virtual hours of each seed")
    parser.add_argument("--faults", help="numbers of the seed's faults to use, or none; by default all")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--seconds", type=float, default=600.0, help="without a seed: how long to run seeds")
    parser.add_argument("--first", type=int, default=1, help="without a seed: the first one")
    options = parser.parse_args()
    gc.set_threshold(20_000, 20, 50)  # a world has many objects that stay, and hardly any cycles
    if options.seed is None:
        return run_many(options.seconds, options.hours, options.first)
    faults = None
    if options.faults:
        faults = [int(number) for number in options.faults.split(",") if number != "none"]
    return run_one(options.seed, options.hours, faults, not options.no_shrink)


if __name__ == "__main__":
    sys.exit(main())
