"""TimingPointCodes that may be meant by one that does not exist."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

MAX_SIMILAR = 3

_DIGITS = "0123456789"


def similar_codes(code: str, is_known: Callable[[str], object], neighbours: Iterable[str] = ()) -> tuple[str, ...]:
    """Return known codes with one mistyped, missing, additional or swapped digit, then neighbours; three at most.

    Examines about 220 codes. neighbours: the codes that are nearest in order.
    """
    mistyped = [other for other in dict.fromkeys(_variants(code)) if is_known(other)]
    return tuple(islice(dict.fromkeys((*mistyped, *neighbours)), MAX_SIMILAR))


def _variants(code: str) -> Iterator[str]:
    for i, digit in enumerate(code):
        if i + 1 < len(code):
            yield code[:i] + code[i + 1] + digit + code[i + 2 :]
        for other in _DIGITS:
            if other != digit:
                yield code[:i] + other + code[i + 1 :]
    for i in range(len(code)):
        yield code[:i] + code[i + 1 :]
    for i in range(len(code) + 1):
        for other in _DIGITS:
            yield code[:i] + other + code[i:]
