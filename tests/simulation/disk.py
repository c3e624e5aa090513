"""The disk of the world: full after so many bytes, slow, and torn by a loss of power.

The kernel itself refuses to write beyond a limit (RLIMIT_FSIZE), as it does on a full disk: in part, then not at all.
So the program writes its log, snapshots and GTFS files as always. While the disk is slow, a process whose log or
snapshot is written does nothing else for so long: its events wait.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING
from unittest.mock import patch

from govi_server.runtime.log_file import LogFile

if TYPE_CHECKING:
    from tests.simulation.world import World

SLOWEST = 0.1
"""The most seconds that a write takes."""
RECOVERY_SECONDS = 3.0
"""Time after which nothing is late any more since the disk was slow."""
SYNC_FACTOR = 5
"""How many times longer than a write it takes until a snapshot is on the disk."""


class Disk:
    """The disk of all nodes. is_full: whether nothing can be written. delay: the seconds that a write takes."""

    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self.random = random
        self.delay = 0.0
        self.slow_until = -inf
        self.is_full = False
        self.was_full = False
        """Whether it was full, or torn, at any time: then a line of a log may have been written in part."""

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Let writes take their time."""
        append = LogFile.append

        def append_slowly(file: LogFile, lines: bytes | bytearray) -> int:
            self._wait(file._path, self.delay)
            return append(file, lines)

        def sync(number: int) -> None:
            self._wait(Path(os.readlink(f"/proc/self/fd/{number}")), SYNC_FACTOR * self.delay)

        with patch.object(LogFile, "append", append_slowly), patch.object(os, "fsync", sync):
            yield

    @property
    def slack(self) -> float:
        """Seconds that a response may be late because the disk is slow, or was until a few seconds ago."""
        return 2 * SYNC_FACTOR * SLOWEST if self.world.scheduler.now < self.slow_until + RECOVERY_SECONDS else 0.0

    def set_delay(self, delay: float) -> None:
        """Be slow, or with 0 no longer."""
        self.delay = delay
        self.slow_until = inf if delay else min(self.slow_until, self.world.scheduler.now)

    def _wait(self, path: Path, seconds: float) -> None:
        for node in self.world.nodes:
            if node.reactor is not None and node.directory in path.parents:
                node.reactor.hold(seconds)

    def fill(self, size: int) -> None:
        """Let no file grow beyond a size in bytes."""
        self.is_full = self.was_full = True
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    def free(self) -> None:
        """Let files grow again."""
        self.is_full = False
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    def tear(self, directory: Path) -> list[Path]:
        """Cut the ends of files of a node off, as a loss of power may; return these files."""
        torn = []
        self.was_full = True
        for path in sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix != ".toml"):
            if self.random.random() < 0.5:
                size = path.stat().st_size
                lost = self.random.randrange(size // 2 + 1) if path.suffix != ".jsonl" else self.random.randrange(300)
                with path.open("rb+") as file:
                    file.truncate(max(size - lost, 0))
                torn.append(path)
        return torn
