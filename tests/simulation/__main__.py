"""``make simulate``: run seeds, report what they find, and shrink it."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.world import Violation, World


def run(seed: int, hours: float, faults: list[int] | None = None) -> tuple[World, Violation | None, str]:
    """Run a seed; return its world, what it found, and its line."""
    began = time.process_time()
    world = World(seed, hours, faults)
    violation = world.run()
    seconds = time.process_time() - began
    virtual = world.scheduler.now - world.begin
    line = (
        f"seed {seed}: {hours:.1f} h, hash {world.digest}, {world.n_events:,} events, "
        f"{virtual / seconds:.1f} x real time"
    )
    return world, violation, line


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    parser.add_argument("--hours", type=float, default=1.0)
    options = parser.parse_args()
    world, violation, line = run(options.seed, options.hours)
    print(line)
    if violation is not None:
        print(f"{violation.oracle}: {violation.text}")
        print("\n".join(world.trace))
    return violation is not None


if __name__ == "__main__":
    sys.exit(main())
