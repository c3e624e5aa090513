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
LIMIT = 60.0
"""Seconds of processor time in which a fault must be found."""
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
    command = f"ulimit -S -t {2 * LIMIT:.0f}; exec {run}"
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


def find(patch: Path) -> tuple[float | None, str]:
    """Run seeds with a fault; return the processor time until it was found, or None, and the rule that it broke."""
    with tempfile.TemporaryDirectory(prefix="govi-planted-") as directory:
        target = Path(directory)
        plant(patch, target)
        total, seed, rule = 0.0, 0, ""
        while total < LIMIT and not rule:
            seed += 1
            seconds, rule = simulate(target, seed)
            total += seconds
        return (total, rule) if rule and total < LIMIT else (None, "")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate-check", description=__doc__)
    parser.add_argument("names", nargs="*", help="of patches; by default all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    patches = [patch for patch in PATCHES if not options.names or patch.stem in options.names]
    missed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for patch, (seconds, rule) in zip(patches, pool.map(find, patches), strict=True):
            print(f"| {patch.stem} | {'not found' if seconds is None else f'{seconds:.0f}'} | {rule} |", flush=True)
            missed += seconds is None
    print(f"{len(patches) - missed} of {len(patches)} found")
    return missed > MAX_MISSED * len(patches)


if __name__ == "__main__":
    sys.exit(main())
