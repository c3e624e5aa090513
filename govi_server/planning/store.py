"""The cache directory of planning: the latest valid file, compiled, and the state of its source."""

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from govi_server.planning.download import Validators

UNFINISHED_SECONDS = 3600.0
"""Age from which files of an attempt that did not end are removed."""

MAX_STATE_BYTES = 1 << 16


class State(Struct):
    """The state of a source, which is stored. Times are epoch seconds."""

    name: str = ""
    """Name of the latest file that was compiled or refused."""
    validators: Validators = Validators()
    """Its version."""
    refused: str = ""
    """Why it was refused; "" if it was not."""
    checked_at: float = 0.0
    """When the source was last checked successfully, whether it had a new file or not."""
    failed_at: float = 0.0
    failures: int = 0
    """Failed attempts since then, and the time of the last one."""


def cache_directory(environment: Mapping[str, str], home: Path) -> Path:
    """Return the program's cache directory: that of systemd, or of the XDG Base Directory Specification."""
    if path := environment.get("CACHE_DIRECTORY", "").partition(":")[0]:
        return Path(path)
    base = environment.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else home / ".cache") / "govi-cache"


class PlanningStore:
    """The files of one source, in a directory of its own. Without a writable one, they are temporary.

    is_temporary: whether they are.
    """

    def __init__(self, directory: Path, source: str) -> None:
        label = re.sub(r"[^A-Za-z0-9.]+", "-", source)[-40:].strip("-")
        name = f"gtfs-{label}-{hashlib.sha256(os.fsencode(source)).hexdigest()[:12]}"
        self.directory = directory / name
        self.is_temporary = False

    def open(self, now: float) -> State:
        """Create the directory; return the stored state, or a new one. Raises OSError.

        now: the time in epoch seconds.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.directory):
                pass
        except OSError:
            self.directory = Path(tempfile.mkdtemp(prefix="govi-cache-"))
            self.is_temporary = True
        for unfinished in self.directory.glob("*.new*"):  # a process was killed; another one may be at work
            if now - unfinished.stat().st_mtime > UNFINISHED_SECONDS:
                unfinished.unlink(missing_ok=True)
        try:
            with (self.directory / "state.json").open("rb") as file:
                return msgspec.json.decode(file.read(MAX_STATE_BYTES), type=State)
        except (OSError, ValueError):
            return State()

    @property
    def planning(self) -> Path:
        """The compiled planning."""
        return self.directory / "planning"

    @property
    def new_planning(self) -> Path:
        """The planning that is compiled now; of this process, if several use the directory."""
        return self.directory / f"planning.new.{os.getpid()}"

    @property
    def new_file(self) -> Path:
        """The file that is downloaded now."""
        return self.directory / f"gtfs.new.{os.getpid()}.zip"

    def save(self, state: State) -> None:
        """Store the state. Raises OSError."""
        path = self.directory / f"state.new.{os.getpid()}"
        path.write_bytes(msgspec.json.encode(state))
        path.replace(self.directory / "state.json")
