"""Append to log files that other programs may rotate, and other processes may write."""

import fcntl
import glob
import os
import re
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE, S_ISREG

_NUMBER = re.compile("[1-9][0-9]{0,4}")
"""The suffix of a renamed file. Others, such as 20260101 or 01, are those of other programs."""


class LogFile:
    """A file to which lines are appended.

    Lines are appended by one system call, so that those of several processes do not mix, and another program may
    truncate the file. If it is renamed or removed, the next line creates it again, with the same permissions.

    path: absolute, since twistd changes its directory. rotate_bytes: the size at which the file is renamed to
    <path>.1, and <path>.1 to <path>.2; None for no limit. keep_files: the number of renamed files that remain.
    Raises OSError or ValueError if it cannot be opened.
    """

    def __init__(self, path: str, rotate_bytes: int | None = None, keep_files: int | None = None) -> None:
        self._path = Path(path)
        self._rotate_bytes = rotate_bytes
        self._keep_files = keep_files
        self._file = -1
        self._identity = (0, 0)
        self._is_incomplete = False
        """Whether the last line in the file was written in part."""
        self._size = 0
        self._open()

    def write(self, text: str) -> None:
        """Append lines. Raises OSError, for example if the disk is full; then the rest is lost."""
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[self.append(data) :]

    def append(self, lines: bytes | bytearray) -> int:
        """Append lines; return the number of bytes of those that are in the file.

        They are fewer if the disk is full, which the next call reports; it also ends a line that was written in part.
        Raises OSError if no byte can be written.
        """
        self._follow()
        data = b"\n" + lines if self._is_incomplete else lines
        written = os.write(self._file, data)
        with suppress(OSError):
            while written < len(data):
                written += os.write(self._file, data[written:])
        complete = written
        if written < len(data):  # a line that lacks only its line feed is in the file
            complete = data.rfind(b"\n", 0, written + 1) + 1
        self._is_incomplete = complete != written
        return complete - (len(data) - len(lines))

    def flush(self) -> None:
        """Do nothing: lines are not buffered."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def reopen(self) -> None:
        """Close the file and open the one that has its name now. Raises OSError."""
        self._open()

    def rotate(self) -> None:
        """Rename the file to <path>.1 and create a new one, unless another process is doing so. Raises OSError."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:  # a file system without locks
            pass
        try:
            if self._is_current():
                self._rename()
        finally:
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)
        self._open()

    def _rename(self) -> None:
        prefix = f"{self._path.name}."
        suffixes = (path.name.removeprefix(prefix) for path in self._path.parent.glob(f"{glob.escape(prefix)}*"))
        for number in sorted((int(suffix) for suffix in suffixes if _NUMBER.fullmatch(suffix)), reverse=True):
            if self._keep_files is not None and number >= self._keep_files:
                self._numbered(number).unlink(missing_ok=True)
            else:
                self._numbered(number).rename(self._numbered(number + 1))
        self._path.rename(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _open(self) -> None:
        """Open the file; continue with the open one if that is impossible and it was only renamed."""
        previous = os.fstat(self._file) if self._file >= 0 else None
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            if previous is None or not previous.st_nlink:
                raise
            return
        status = os.fstat(file)
        if previous is not None:
            os.close(self._file)
            if not status.st_size:
                with suppress(OSError):  # the file of another user
                    os.fchmod(file, S_IMODE(previous.st_mode))
        self._file = file
        identity = status.st_dev, status.st_ino
        if identity != self._identity:
            self._identity = identity
            self._is_incomplete = S_ISREG(status.st_mode) and _is_cut_off(self._path)

    def _is_current(self) -> bool:
        """Return whether the open file still has its name."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return False
        self._size = status.st_size
        return (status.st_dev, status.st_ino) == self._identity

    def _follow(self) -> None:
        """Open the file again if it was renamed or removed; rotate it if it is full."""
        if not self._is_current():
            self._open()
        elif self._rotate_bytes is not None and self._size >= self._rotate_bytes:
            with suppress(OSError):  # continue with this file
                self.rotate()


def _is_cut_off(path: Path) -> bool:
    """Return whether a file ends within a line: an earlier process wrote to a full disk, or the power failed."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # an empty file, or one that may only be written
        return False
