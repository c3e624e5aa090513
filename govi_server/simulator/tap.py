"""The command ``twistd govi-simulator``."""

from pathlib import Path
from random import Random
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from govi_server.departures.times import local_date
from govi_server.errors import StartupError
from govi_server.settings import is_http_url
from govi_server.simulator.faults import Faults, Way
from govi_server.simulator.feed import Publisher, SimulatedFeed
from govi_server.simulator.gateway import Behaviour, simulation
from govi_server.simulator.replay import Replay
from govi_server.simulator.town import Town
from govi_server.simulator.town_feed import TownFeed
from govi_server.sockets.listener import server_service


def _fraction(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError("a fraction is from 0 to 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 3600:
        raise ValueError("seconds are from 0 to 3600")
    return number


def _speed(text: str) -> float:
    number = float(text)
    if not 0.01 <= number <= 10_000:
        raise ValueError("a speed is from 0.01 to 10000")
    return number


class Options(usage.Options):
    """What can be said on the command line."""

    synopsis = "[options]"
    longdesc = (
        "Plays a GOVI gateway (KV55) over the timetable of a made-up town: takes a DRIS_55_REQ by POST on any path, "
        "and posts the DRIS_55 to the callback address. With --feed it also publishes KV7 and KV8 of that town over "
        "ZeroMQ, as the KV78turbo feed does."
    )
    optParameters = [
        ["listen", "l", "tcp:8083:interface=127.0.0.1", "Endpoint that takes the questions."],
        ["callback-url", "c", "http://127.0.0.1:8082/", "Where the answers go."],
        ["delay", "d", 0.3, "Seconds from a question to its answer.", _seconds],
        ["drop", None, 0.0, "Fraction of the questions that get no answer, from 0 to 1.", _fraction],
        ["seed", "s", 55, "What timetable, delays, cancellations and drops follow from.", int],
        ["feed", "f", None, "ZeroMQ address that publishes KV7 and KV8, such as tcp://127.0.0.1:7817."],
        ["speed", None, 1.0, "How many times faster than real the feed's time goes.", _speed],
        ["garbage", None, 0.0, "Fraction of the feed's messages in whose place nonsense comes.", _fraction],
        ["silence", None, 0.0, "Seconds for which the feed says nothing, every three minutes.", _seconds],
        ["duplicate", None, 0.0, "Fraction of the feed's messages that come twice.", _fraction],
        ["out-of-order", None, 0.0, "Fraction of the feed's messages that come after later ones.", _fraction],
        [
            "replay",
            None,
            None,
            "Directory of recordings (.jsonl, .ctx, or those with .gz) that the feed publishes in place of the town, "
            "once, from the first subscriber on. Their dates are shifted: the day of the earliest KV8 becomes today, "
            "or without KV8 the day on which most is planned.",
        ],
    ]
    optFlags = [["gzip", "z", "Compress the answers."]]


_FEED_OPTIONS = ("replay", "speed", "garbage", "silence", "duplicate", "out-of-order")


def makeService(options: Options, reactor: Any = None) -> IService:
    """Make the simulator's service."""
    if reactor is None:
        from twisted.internet import reactor
    if not is_http_url(options["callback-url"]):
        raise SystemExit(f"govi-simulator: --callback-url is not an http address: {options['callback-url']!r}")
    behaviour = Behaviour(options["delay"], options["drop"], bool(options["gzip"]), options["seed"])
    server = simulation(reactor, behaviour, lambda: str(options["callback-url"]))
    try:
        services = server_service(reactor, server, [options["listen"]])
        if options["feed"]:
            services.addService(_feed(options, reactor))
        else:
            for name in _FEED_OPTIONS:
                if options[name] != Options()[name]:
                    raise StartupError(f"--{name} needs --feed: where to publish")
        return services
    except StartupError as error:
        raise SystemExit(f"govi-simulator: {error}") from None


def _feed(options: Options, reactor: Any) -> SimulatedFeed:
    """Make the feed of the town, or of recordings."""
    began, speed, seed = reactor.seconds(), options["speed"], options["seed"]

    def now() -> float:
        return float(began + (reactor.seconds() - began) * speed)

    source: TownFeed | Replay
    if options["replay"] is None:
        source = TownFeed(Town(seed), now)
    else:
        source = Replay(Path(options["replay"]), local_date(began), speed)
    faults = Faults(options["garbage"], options["duplicate"], options["out-of-order"])
    return SimulatedFeed(reactor, Publisher(options["feed"]), source, Way(faults, Random(seed)), options["silence"])
