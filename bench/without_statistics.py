"""twistd with a govi-cache without statistics, to measure their cost."""

from typing import Any

from twisted.scripts.twistd import run

from govi_server import request_handler


class NoStatistics:
    """A ConnectionRecorder that records nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return self._ignore

    def _ignore(self, *_: Any) -> None: ...

    repeat = set_client = finish = mark = describe = answer = abandon = flush = begin = _ignore


request_handler.ConnectionRecorder = NoStatistics
run()
