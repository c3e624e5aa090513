"""The problems that /ready, /health and the status report, with codes for programs."""

from typing import Literal, NamedTuple

ProblemCode = Literal[
    "connections-near-limit",
    "feed-down",
    "feed-empty",
    "gateway-silent",
    "gateway-unreachable",
    "module-failing",
    "no-departures",
    "no-planning",
    "no-worker",
    "not-shared",
    "old-planning",
    "requests-failing",
    "snapshot-unwritable",
    "statistics-unwritable",
    "stopping",
    "too-many-files",
    "worker-missing",
]
"""Codes do not change from version to version; docs/operations.md describes them."""


class Problem(NamedTuple):
    """A problem. source: what it is about: the name of a gateway's module, "feed" or "server"."""

    code: ProblemCode
    source: str
    text: str
    """A sentence for operators, which may change."""
