"""Exceptions that were handled."""

from twisted.python.failure import Failure


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
