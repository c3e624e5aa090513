"""Find objects that only the garbage collector would free."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CoroutineType, FrameType, TracebackType

from OpenSSL.SSL import Connection as OpenSSLConnection
from twisted.internet.defer import Deferred
from twisted.internet.tcp import Server
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

TYPES = (Deferred, FrameType, TracebackType, CoroutineType, Server, ProtocolWrapper, OpenSSLConnection)
"""Types, besides those of the program, that refer to what a connection held."""

original_init = Failure.__init__
"""Without the patch that pytest applies while a test runs, which lets each Failure refer to a traceback."""


def clean_failure(failure: Failure) -> None:
    """Do what Failure.cleanFailure() does, which pytest-twisted replaces by one that does nothing."""
    failure.tb = None
    if failure.value is not None:
        failure.value.__traceback__ = None


@contextmanager
def without_collector() -> Iterator[None]:
    """Disable the garbage collector, and let created_objects() ignore the objects that exist now."""
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def created_objects(types: tuple[type, ...] = TYPES) -> Counter[str]:
    """Return the number of objects by type: those of the program, and of some other types."""
    found = Counter(type(each) for each in gc.get_objects())
    return Counter(
        {
            t.__name__: n
            for t, n in found.items()
            if str(t.__module__).startswith("govi_server.") or issubclass(t, types)
        }
    )
