"""What the program uses of the operating system besides its reactor, so that a simulated reactor can replace it.

A reactor that has one of these attributes is used instead of the function in brackets: ``monotonic``
(time.monotonic), ``call_every`` (runtime.clock.call_every), ``epoll`` (select.epoll), ``zmq_context`` (zmq.Context).
No reactor of Twisted has any. tests/simulation runs the whole program on one that has all of them.
"""

from typing import TypeVar, cast

_T = TypeVar("_T")


def outside(reactor: object, name: str, default: _T) -> _T:
    """Return the function of this name of a simulated reactor, or the default of any other reactor."""
    return cast(_T, getattr(reactor, name, default))
