"""A feed that a test publishes, and a govi-cache that is subscribed to it."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from govi_server.runtime.clock import LOCAL_ZONE
from tests import feed as kv
from tests.integration.conftest import Twistd, arguments, wait_for
from tests.ports import free_port


class LiveFeed(NamedTuple):
    """A publisher, and the public and the operators' port of the govi-cache that is subscribed to it."""

    publisher: Any
    port: int
    admin: int

    def publish(self, *passtimes: kv.Row) -> None:
        """Publish passtimes; by default they depart in half an hour."""
        now = datetime.now(LOCAL_ZONE)
        departure = now + timedelta(minutes=30)
        times = ("TargetArrivalTime", "TargetDepartureTime", "ExpectedArrivalTime", "ExpectedDepartureTime")
        row = {
            "OperationDate": f"{departure:%Y-%m-%d}",
            "LastUpdateTimeStamp": now.isoformat(timespec="seconds"),
            **dict.fromkeys(times, f"{departure:%H:%M}:00"),
        }
        message = kv.passtimes(*({**row, **passtime} for passtime in passtimes), published=now.isoformat())
        self.publisher.send_multipart([b"/GOVI/KV8passtimes/LIN", gzip.compress(message, 1)])


@contextmanager
def live_feed(twistd: Twistd, directory: Path, toml: str = "") -> Iterator[LiveFeed]:
    """Start a govi-cache with a configuration, and return the feed to which it is subscribed.

    directory: of its configuration, and of its statistics log, statistics.log.
    """
    address = f"ipc://{directory}/feed"
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.linger = 0
        publisher.bind(address)
        feed = LiveFeed(publisher, free_port(), free_port())
        (directory / "config.toml").write_text(toml)
        more = ["--config", "config.toml", "--statistics", "statistics.log", "--feed", address, "--gtfs", ""]
        process = twistd(*arguments(feed.port, *more, "--admin", f"tcp:{feed.admin}:interface=127.0.0.1"))
        wait_for(process, "for govi-cache")
        for _ in range(2):  # for KV7 and KV8
            publisher.recv()
        yield feed
