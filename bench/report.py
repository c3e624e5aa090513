"""The report of measurements: printed, and written to a file as a chapter of it."""

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from peers import CORES


class Report:
    """The printed results, and their text for a file. conditions: what a reader needs besides the machine."""

    def __init__(self, title: str, conditions: str) -> None:
        self._title = title
        self.text = ""
        self.line(f"# {title}\n")
        self.line(f"{conditions} {machine()}.")

    def line(self, line: str = "") -> None:
        """Print and add a line."""
        print(line, flush=True)
        self.text += f"{line}\n"

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print and add a table."""
        self.line(f"\n## {title}\n")
        for row in (head, ["---"] * len(head), *rows):
            self.line(f"| {' | '.join(row)} |")

    def write(self, path: Path) -> None:
        """Replace the chapter with this title in a file, or append it."""
        text = path.read_text() if path.exists() else ""
        chapters = [chapter.strip() for chapter in re.split(r"^(?=# )", text, flags=re.MULTILINE) if chapter.strip()]
        titles = [chapter.partition("\n")[0] for chapter in chapters]
        title = f"# {self._title}"
        index = titles.index(title) if title in titles else len(titles)
        chapters[index : index + 1] = [self.text.strip()]
        path.write_text("\n\n".join(chapters) + "\n")


def machine() -> str:
    """Return a description of the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {cpu}, {len(CORES)} cores, load {os.getloadavg()[0]:.1f} before; "
        f"Linux {platform.release().partition('-')[0]}; Python {platform.python_version()}; "
        f"servers on core {CORES[0]}, load on {CORES[-1]}"
    )
