"""The version of this program, whose only source is pyproject.toml."""

import importlib.metadata

VERSION = importlib.metadata.version("govi-server")

SOFTWARE = f"govi-cache/{VERSION}"
"""The program and its version, in header fields."""


def version_text(program: str) -> str:
    """Return the output of a program's --version."""
    return f"{program} {VERSION}"
