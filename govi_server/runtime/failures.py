"""Exceptions that were handled, and their reasons as texts."""

import os

from twisted.internet.error import ConnectError, TimeoutError
from twisted.python.failure import Failure

from govi_server.runtime.text import printable


def release(error: BaseException | None) -> None:
    """Break the reference cycles of a handled exception, so that what its frames refer to is freed at once.

    By its traceback it refers to frames, whose variables may refer to it; so does the exception in whose handling it
    was raised. If it was raised by awaiting a Deferred that had already failed, it also refers to its Failure.
    """
    while error is not None and (error.__traceback__ is not None or hasattr(error, "__failure__")):
        failure = vars(error).pop("__failure__", None)
        if isinstance(failure, Failure):
            failure.cleanFailure()
        error.__traceback__ = None
        error = error.__context__


def connect_failure(error: BaseException, timeout: float) -> str:
    """Return the reason of a failed connection as a short text. timeout: its limit in seconds."""
    if isinstance(error, ConnectError) and isinstance(error.osError, int):
        return os.strerror(error.osError).lower()
    if isinstance(error, TimeoutError):
        return f"no connection within {timeout:g} s"
    return printable(str(error).rstrip("."), 200) or type(error).__name__
