"""The versions of this program and of Twisted."""

import importlib.metadata

VERSION = importlib.metadata.version("govi-server")


def version_text(program: str) -> str:
    """Return the output of a program's --version."""
    return f"{program} {VERSION} (Twisted {importlib.metadata.version('Twisted')})"
