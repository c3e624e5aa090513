"""The command ``twistd govi-simulator``: its options and its service."""

from collections.abc import Callable
from math import nan
from pathlib import Path
from random import Random
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from govi_server.departures.times import local_date
from govi_server.errors import StartupError
from govi_server.runtime.options import Options as ProgramOptions
from govi_server.runtime.printable_log import install
from govi_server.runtime.program import Program, open_log_file
from govi_server.runtime.text import printable
from govi_server.runtime.version import version_text
from govi_server.settings import is_http_url
from govi_server.simulator.feed import Publisher, SimulatedFeed
from govi_server.simulator.feed_faults import FaultInjector, FeedFaults
from govi_server.simulator.gateway import GatewayBehaviour, make_gateway_server
from govi_server.simulator.replay import Replay
from govi_server.simulator.town import Town
from govi_server.simulator.town_feed import TownFeed
from govi_server.sockets.listener import server_service


def _number(name: str, noun: str, minimum: float, maximum: float) -> Callable[[str], float]:
    """Return a parser of an option's number, which raises UsageError for one that is invalid or out of bounds."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = nan
        if not minimum <= number <= maximum:
            expected = f"{noun} from {minimum:g} to {maximum:g}"
            raise usage.UsageError(f"--{name}: invalid value {text!r} (expected {expected})")
        return number

    return parse


def _fraction(name: str) -> Callable[[str], float]:
    return _number(name, "a fraction", 0, 1)


def _seconds(name: str) -> Callable[[str], float]:
    return _number(name, "a number of seconds", 0, 3600)


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise usage.UsageError(f"--seed: invalid value {text!r} (expected a whole number)") from None


_BEHAVIOUR = GatewayBehaviour()


class Options(ProgramOptions):
    """The command line."""

    program = "govi-simulator"
    synopsis = "[options]"
    longdesc = (
        "Simulates a GOVI gateway (KV55) with the timetable of a fictional town: it receives a DRIS_55_REQ by POST "
        "on any path, and posts the DRIS_55 to the callback URL. With --feed it also publishes KV7 and KV8 of that "
        "town over ZeroMQ, as the KV78turbo feed does."
    )
    optParameters = [
        ["listen", "l", "tcp:8083:interface=127.0.0.1", "Endpoint that receives the requests."],
        ["callback-url", None, "http://127.0.0.1:8082/", "URL that the responses are posted to."],
        ["delay", "d", _BEHAVIOUR.delay, "Seconds from a request to its response.", _seconds("delay")],
        ["drop", None, _BEHAVIOUR.loss, "Fraction of requests without a response, from 0 to 1.", _fraction("drop")],
        ["seed", None, _BEHAVIOUR.seed, "Seed of timetable, delays, cancellations and faults.", _seed],
        ["feed", "f", None, "ZeroMQ address that KV7 and KV8 are published on, such as tcp://127.0.0.1:7817."],
        [
            "speed",
            None,
            1.0,
            "Speed of the feed's time: 60 is a minute per second.",
            _number("speed", "a number", 0.01, 10_000),
        ],
        [
            "garbage",
            None,
            0.0,
            "Fraction of the feed's messages that are replaced by corrupt ones.",
            _fraction("garbage"),
        ],
        ["silence", None, 0.0, "Seconds without any message of the feed, every three minutes.", _seconds("silence")],
        ["duplicate", None, 0.0, "Fraction of the feed's messages that are sent twice.", _fraction("duplicate")],
        [
            "out-of-order",
            None,
            0.0,
            "Fraction of the feed's messages that are sent after later ones.",
            _fraction("out-of-order"),
        ],
        [
            "replay",
            None,
            None,
            "Recording (.jsonl, .ctx, also .gz), or directory of recordings, to publish instead of the town, once, "
            "from the first subscription on. Their dates are shifted: the day of the earliest KV8 becomes today, or "
            "without KV8 the day with the most planned passing times.",
        ],
    ]
    optFlags = [["gzip", "z", "Compress the responses."]]

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        print(version_text("govi-simulator"))
        raise SystemExit


_FEED_OPTIONS = ("replay", "speed", "garbage", "silence", "duplicate", "out-of-order")


def makeService(options: Options, reactor: Any = None) -> IService:
    """Return the simulator's service.

    Raises SystemExit with a one-line message if the options are invalid.
    """
    if reactor is None:
        from twisted.internet import reactor
    install()
    url = options["callback-url"]
    if not is_http_url(url):
        raise SystemExit(
            f"govi-simulator: --callback-url: invalid URL {url!r} (expected, for example, http://localhost/)"
        )
    behaviour = GatewayBehaviour(
        delay=options["delay"], loss=options["drop"], gzip=bool(options["gzip"]), seed=options["seed"]
    )
    server = make_gateway_server(reactor, behaviour, lambda: str(url))
    try:
        services = Program(reactor, open_log_file(options.parent))
        services.addService(server_service(reactor, "--listen", [options["listen"]], server))
        if options["feed"]:
            services.addService(_make_feed(options, reactor))
        else:
            for name in _FEED_OPTIONS:
                if options[name] != Options()[name]:
                    raise StartupError(f"--{name}: requires --feed, the address to publish on")
        return services
    except StartupError as error:
        raise SystemExit(f"govi-simulator: {printable(str(error))}") from None


def _make_feed(options: Options, reactor: Any) -> SimulatedFeed:
    """Return the feed of the town, or of recordings."""
    start, speed, seed = reactor.seconds(), options["speed"], options["seed"]

    def now() -> float:
        return float(start + (reactor.seconds() - start) * speed)

    source: TownFeed | Replay
    if options["replay"] is None:
        source = TownFeed(Town(seed), now)
    else:
        source = Replay(Path(options["replay"]), local_date(start), speed)
    faults = FeedFaults(
        garbage=options["garbage"], duplicate=options["duplicate"], out_of_order=options["out-of-order"]
    )
    return SimulatedFeed(
        reactor, Publisher(options["feed"]), source, FaultInjector(faults, Random(seed)), options["silence"]
    )
