"""twistd with a govi-cache that records no statistics, to measure their cost."""

from typing import Any

from twisted.scripts.twistd import run

from govi_server import request_handler
from govi_server.statistics.records import ConnectionRecorder


class NoStatistics:
    """A ConnectionRecorder that records nothing."""

    def __init__(self, *_: Any) -> None: ...

    def ignore(self, *_: Any, **__: Any) -> None:
        """Ignore a call."""


for name, method in vars(ConnectionRecorder).items():
    if callable(method) and not name.startswith("_"):
        setattr(NoStatistics, name, NoStatistics.ignore)
vars(request_handler)["ConnectionRecorder"] = NoStatistics
run()
