"""twistd, with a govi-cache that keeps no statistics: to measure what they cost."""

from typing import Any

from twisted.scripts.twistd import run

from govi_server import request_handler


class NoRecord:
    """Does nothing with what it is told."""

    in_request = True

    def __init__(self, *_: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return self._pass_over

    def _pass_over(self, *_: Any) -> None: ...

    repeat = set_client = finish = mark = describe = answer = abandon = flush = begin = _pass_over


request_handler.Record = NoRecord
run()
