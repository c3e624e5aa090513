"""The lines of settings in a TOML file, which tomllib does not report."""

import tomllib
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from govi_server.settings_loader import joined, setting_key

MAX_LINES = 1000
"""Each line costs parsing the file up to it; of longer files only the beginning is located."""


class Locations:
    """The lines of keys. lines: numbers by dotted key, from 1."""

    def __init__(self, lines: Mapping[str, int]) -> None:
        self.lines = lines

    def line(self, key: str) -> int:
        """Return the line of a key, or of the nearest table around it; 1 if it is nowhere."""
        key = setting_key(key)
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return self.lines.get(key, 1)


def locate(path: str) -> Locations:
    """Return the lines of all keys of a valid TOML file. Raises OSError or ValueError.

    A statement ends with the first line up to which the file is valid and has its keys: this is right for every
    syntax of TOML, such as arrays of several lines.
    """
    text = Path(path).read_bytes().removeprefix(BOM_UTF8).decode().replace("\r\n", "\n")
    lines: dict[str, int] = {}
    rows = text.split("\n")[:MAX_LINES]
    begin, is_complete = 1, True
    for number, row in enumerate(rows, 1):
        if not row.strip() or row.lstrip().startswith("#"):  # or a part of a text of several lines
            begin = number + 1 if is_complete else begin
            continue
        try:
            values = tomllib.loads("\n".join(rows[:number]))
        except tomllib.TOMLDecodeError:
            is_complete = False
            continue
        is_complete = True
        for key in _keys(values, ""):
            lines.setdefault(key, begin)
        begin = number + 1
    return Locations(lines)


def _keys(values: Mapping[str, Any], name: str) -> Iterator[str]:
    for key, value in values.items():
        yield joined(name, key)
        if isinstance(value, Mapping):
            yield from _keys(value, joined(name, key))
