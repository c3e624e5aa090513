"""The disk of the world: full after so many bytes, and torn by a loss of power.

The kernel itself refuses to write beyond a limit (RLIMIT_FSIZE), as it does on a full disk: in part, then not at all.
So the program writes its log, snapshots and GTFS files as always. A slow disk takes time, which no turn does here.
"""

import resource
from pathlib import Path
from random import Random


class Disk:
    """The disk of all nodes. is_full: whether nothing can be written."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.is_full = False
        self.was_full = False
        """Whether it was full, or torn, at any time: then a line of a log may have been written in part."""

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
