"""``make simulate-check``: plant each fault in a copy of the program, and see how soon the simulation finds it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[3]
PATCHES = sorted(Path(__file__).parent.glob("*.patch"))
SEEDS = 10
"""Half-hour seeds in which a fault must be found: a minute of processor time, at 300 times real time.

A number of seeds, and not of seconds, so that all machines have the same result.
"""
MAX_SECONDS = 300
"""Processor time of a seed, after which it is killed."""
MAX_MISSED = 0.1
"""The fraction of the faults that may not be found."""


def plant(patch: Path, target: Path) -> None:
    """Make a copy of the program with a fault."""
    for name in ("govi_server", "tests"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["patch", "--strip=1", "--quiet", "--input", str(patch)], cwd=target, check=True)


def simulate(directory: Path, seed: int) -> tuple[float, str]:
    """Run a seed in a copy of the program; return its processor time, and the rule that was broken, if any."""
    output = directory / "output"
    run = f"{sys.executable} -m tests.simulation --seed {seed} --hours 0.5 --no-shrink"
    command = f"ulimit -S -t {MAX_SECONDS}; exec {run}"
    with open(output, "wb") as file:
        process = subprocess.Popen(["/bin/sh", "-c", command], cwd=directory, stdout=file, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    rule = ""
    if process.returncode:
        lines = output.read_text("utf-8").splitlines()
        found = next((line for line in lines if line.startswith(f"seed {seed}, ")), ": the program fails")
        rule = found.rpartition(": ")[2]
    return usage.ru_utime + usage.ru_stime, rule


def find(patch: Path) -> tuple[int, float, str]:
    """Run seeds with a fault; return how many, their processor time, and the rule that was broken, if any."""
    with tempfile.TemporaryDirectory(prefix="govi-planted-") as directory:
        target = Path(directory)
        plant(patch, target)
        total = 0.0
        for seed in range(1, SEEDS + 1):
            seconds, rule = simulate(target, seed)
            total += seconds
            if rule:
                break
        return seed, total, rule


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate-check", description=__doc__)
    parser.add_argument("names", nargs="*", help="of patches; by default all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    patches = [patch for patch in PATCHES if not options.names or patch.stem in options.names]
    missed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for patch, (seed, seconds, rule) in zip(patches, pool.map(find, patches), strict=True):
            print(f"| {patch.stem} | {seed if rule else 'not found'} | {seconds:.0f} | {rule} |", flush=True)
            missed += not rule
    print(f"{len(patches) - missed} of {len(patches)} found")
    return missed > MAX_MISSED * len(patches)


if __name__ == "__main__":
    sys.exit(main())
