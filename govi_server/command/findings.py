"""The findings of ``govi-cache doctor``."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """A finding. subject: the setting or part of the machine. advice: what to do, "" for nothing."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    text: str
    advice: str = ""


def ok(subject: str, text: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding("ok", subject, text)


def warn(subject: str, text: str, advice: str) -> Finding:
    """Return a finding that does not prevent serving, but should be looked at."""
    return Finding("warn", subject, text, advice)


def fail(subject: str, text: str, advice: str) -> Finding:
    """Return a finding that prevents serving, or some of it."""
    return Finding("fail", subject, text, advice)
