"""All modules of the program with the demo's data, in memory and always on the same morning.

`make examples` writes their responses to the documented examples to govi_server/openapi/examples.json, for /docs.
"""

import gzip
import json
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path as File
from typing import Any, cast
from unittest import mock

from twisted.application.service import MultiService
from twisted.internet.testing import MemoryReactorClock

from govi_server import application
from govi_server.http import event_listeners
from govi_server.kv78turbo.subscriber import State, Subscriber
from govi_server.openapi.description import Example, IDocumented, Operation
from govi_server.operations.components import Components
from govi_server.request_handler import RequestHandler
from govi_server.runtime.ordered_services import OrderedMultiService
from govi_server.server import Server
from govi_server.settings_loader import load
from govi_server.simulator.town import Town
from govi_server.simulator.town_feed import TownFeed
from tests.client import Client, Response
from tests.doubles import FakeSubscriber

MORNING = 1_768_453_565.0  # 2026-01-15T06:06:05+01:00, with few vehicles under way
FILE = File(__file__).parents[1] / "govi_server/openapi/examples.json"

SOURCES: dict[str, dict[str, Any]] = {
    "demo": {"modules.kv55.source": "demo"},
    "feed": {"modules.kv55.source": "kv78turbo", "feed.gtfs": ""},
    "gateway": {"modules.kv55.source": "govi", "modules.kv55.gateway_url": "http://127.0.0.1:1/"},
}
"""Settings of each source of departures."""

TOWN = Town()


@lru_cache(maxsize=4)
def messages(now: float) -> list[tuple[str, bytes]]:
    """Return the envelopes and payloads of all messages about the town at a moment, in epoch seconds."""
    steps = TownFeed(TOWN, lambda: now).steps(0)
    return [(message.envelope, gzip.compress(message.ctx, 1)) for message in chain.from_iterable(steps)]


class Program:
    """All modules of the program behind a server; their services are not started.

    has_data: whether the feed and the gateways have sent data. now: epoch seconds.
    """

    pauses: tuple[float, ...] = (*[0.001] * 30, 11)
    """Seconds until there is a response: for a stop index, and for a gateway that does not respond."""

    def __init__(self, source: str, has_data: bool = True, now: float = MORNING) -> None:
        self.clock = MemoryReactorClock()
        self.clock.advance(now)
        self.modules = MultiService()
        config = load(None, SOURCES[source])
        self.server = Server(
            "",
            0,
            RequestHandler,
            clock=cast(Any, self.clock),
            find_module=self.modules.getServiceNamed,
            headers=application.response_headers(config),
            errors=application.error_formats(config),
        )
        self.components = Components(self.server)
        application.add_modules(OrderedMultiService(), self.modules, config, self.components, self.clock)
        if self.components.feed is not None:
            self.set_feed_state("UP")
            for envelope, payload in messages(now) if has_data else ():
                ingested = self.components.feed.received(envelope, payload)
                while ingested is not None and not ingested.called:
                    self.clock.advance(0)
        for gateway in self.components.gateways.values():
            for code in TOWN.stops if has_data else ():
                gateway.cache.put(TOWN.board(code, self.clock.seconds(), max_trips=2))

    @property
    def operations(self) -> list[Operation]:
        """The operations of all modules."""
        return [operation for module in self.modules for operation in IDocumented(module).describe()]

    def set_feed_state(self, state: State) -> None:
        """Set the state of the feed's connection."""
        assert self.components.feed is not None
        self.components.feed.subscriber = cast(Subscriber, FakeSubscriber(state, self.clock.seconds()))

    def request(self, path: str, accept: str = "", method: str = "GET", more: str = "", host: str = "x") -> Response:
        """Send a request, wait for the response and disconnect; the body of a stream is what it has sent by then."""
        client = Client(self.server)
        fields = f"Accept: {accept}\r\n{more}" if accept else more
        client.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode())
        for pause in self.pauses:
            if client.transport.value():
                break
            self.clock.advance(pause)
        response = client.response(method)
        client.leave()
        return response


def examples() -> Iterator[tuple[Example, Response]]:
    """Yield every documented example with its response; the demo and the feed together have all paths."""
    with mock.patch.object(event_listeners, "RETRY_RANGE", (4000, 4000)):
        for source in ("demo", "feed"):
            program = Program(source)
            for operation in program.operations:
                for example in operation.examples:
                    yield example, program.request(example.url, example.accept)


def as_json() -> str:
    """Return JSON of the content types and bodies of the examples' responses, by key."""
    responses: dict[str, tuple[str, str]] = {}
    for example, response in examples():
        responses.setdefault(example.key, (response.headers.get_content_type(), response.body.decode()))
    return json.dumps(responses, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(as_json())
