"""The JSON of OVapi (v0.ovapi.nl) from the live feed, as its clients expect it (docs/protocols.md, section 3).

An unknown path gets 404 with the body ``[]``.
"""

from collections.abc import Generator

import msgspec
from twisted.application.service import Service
from zope.interface import implementer

from govi_server.documents.ovapi import OvapiDocuments
from govi_server.http.request import Environ
from govi_server.kv78turbo.feed import Feed
from govi_server.modules import ovapi_operations
from govi_server.modules.ovapi_paths import Members, OvapiPaths, StopAreaPaths, StopPaths
from govi_server.openapi.description import IDocumented, Operation
from govi_server.runtime.cooperative import sort_in_steps
from govi_server.web_handler import ICacheableModule, Responder

_encode = msgspec.json.Encoder().encode


class LinePaths(OvapiPaths):
    """/line/, /line/<DataOwnerCode_LinePlanningNumber_LineDirection,...>[/actuals]."""

    operations = ovapi_operations.LINES

    suffixes = ("actuals",)
    list_name = "Lines"

    @property
    def size(self) -> int:
        """The number of members of everything."""
        return self.feed.timetable.n_lines + len(self.feed.passtimes.lines)

    def all(self) -> Members:
        """Make every line in every direction, in steps."""
        keys = {*self.feed.passtimes.lines}
        for key in self.feed.timetable.line_keys():
            if key is None:
                yield None
            else:
                keys.add(key)
        for key in (yield from sort_in_steps(list(keys))):
            yield "_".join(key), _encode(self.documents.line(*key))

    def cost(self, code: str) -> int:
        """Return the cost of a line; see Responder."""
        return self.documents.line_cost(*_line_key(code))

    def member(self, code: str, suffix: str) -> Generator[None, None, bytes | None]:
        """Return a line with the passes of its journeys and its stops, encoded, in steps."""
        return self.documents.line_document(*_line_key(code), network=not suffix)


def _line_key(code: str) -> tuple[str, str, str]:
    """Return the DataOwnerCode, LinePlanningNumber and LineDirection of a line's code."""
    operator, _, rest = code.partition("_")
    line, _, direction = rest.rpartition("_")
    return operator, line, direction


class JourneyPaths(OvapiPaths):
    """/journey/, /journey/<DataOwnerCode_LocalServiceLevelCode_LinePlanningNumber_JourneyNumber_Fortify...,...>."""

    operations = ovapi_operations.JOURNEYS

    list_name = "Journeys"

    @property
    def size(self) -> int:
        """The number of members of everything."""
        return len(self.feed.passtimes.journeys)

    def all(self) -> Members:
        """Make the number of stops of every live journey, in steps."""
        for key, stops in list(self.feed.passtimes.journeys.items()):
            yield key.decode().replace("|", "_"), b"%d" % len(stops)

    def cost(self, code: str) -> int:
        """Return the cost of a journey; see Responder."""
        return self.feed.journeys.cost(code)

    def member(self, code: str, suffix: str) -> Generator[None, None, bytes | None]:
        """Return a journey with its stops, encoded, in steps."""
        return self.documents.journey(code)


class GeneralMessagePaths(OvapiPaths):
    """/generalmessage: all current messages."""

    operations = ovapi_operations.GENERAL_MESSAGES

    @property
    def size(self) -> int:
        """The number of stops and messages that are looked at."""
        return len(self.feed.passtimes.stops) + self.feed.passtimes.n_messages

    def all(self) -> Members:
        """Make the messages of all stops, in steps."""
        now = self.feed.clock.seconds()
        for stop in list(self.feed.passtimes.stops.values()):
            yield None
            for message in list((stop.messages or {}).values()):
                if message.is_current(now):
                    yield message.key, _encode(self.documents.message(message))


class LastUpdatePaths(OvapiPaths):
    """/lastupdate: the latest timestamps of data owners and subscriptions."""

    operations = ovapi_operations.LAST_UPDATE

    @property
    def size(self) -> int:
        """The number of timestamps."""
        return len(self.feed.passtimes.last_update) + len(self.feed.subscriptions)

    def all(self) -> Members:
        """Make the timestamps, in steps."""
        document = yield from self.documents.last_update()
        for name, value in msgspec.structs.asdict(document).items():
            yield name, _encode(value)


PATHS: dict[str, type[OvapiPaths]] = {
    "tpc": StopPaths,
    "stopareacode": StopAreaPaths,
    "line": LinePaths,
    "journey": JourneyPaths,
    "generalmessage": GeneralMessagePaths,
    "lastupdate": LastUpdatePaths,
}
"""OVapi's paths by their first segment."""


@implementer(ICacheableModule, IDocumented)
class Ovapi(Service):
    """Serves the paths of OVapi with this first segment."""

    def __init__(self, name: str, paths: OvapiPaths) -> None:
        self.name = name
        self._paths = paths

    def describe(self) -> list[Operation]:
        """Return the operations of its paths."""
        return self._paths.operations

    def responder(self, env: Environ) -> Responder:
        """Parse a path and its query. Raises InvalidParameter."""
        request = self._paths.parse(env)
        if request is None:
            return Responder(lambda: self._paths.error_response("unknown"))
        return self._paths.responder(request)


def ovapi_modules(feed: Feed) -> list[Ovapi]:
    """Return the modules of all of OVapi's paths."""
    documents = OvapiDocuments(feed)
    return [Ovapi(name, paths(feed, documents)) for name, paths in PATHS.items()]
