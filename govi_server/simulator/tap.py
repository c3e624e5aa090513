"""The command ``twistd govi-simulator``."""

from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from govi_server.config import is_http_url
from govi_server.services import CannotStart, serving
from govi_server.simulator.gateway import Behaviour, simulation


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


class Options(usage.Options):
    """What can be said on the command line."""

    synopsis = "[options]"
    longdesc = (
        "Plays a GOVI gateway (KV55) over the timetable of a made-up town: takes a DRIS_55_REQ by POST on any path, "
        "and posts the DRIS_55 to the callback address."
    )
    optParameters = [
        ["listen", "l", "tcp:8083:interface=127.0.0.1", "Endpoint that takes the questions."],
        ["callback-url", "c", "http://127.0.0.1:8082/", "Where the answers go."],
        ["delay", "d", 0.3, "Seconds from a question to its answer.", _seconds],
        ["drop", None, 0.0, "Fraction of the questions that get no answer, from 0 to 1.", _fraction],
        ["seed", "s", 55, "What timetable, delays, cancellations and drops follow from.", int],
    ]
    optFlags = [["gzip", "z", "Compress the answers."]]


def makeService(options: Options, reactor: Any = None) -> IService:
    """Make the simulator's service."""
    if reactor is None:
        from twisted.internet import reactor
    if not is_http_url(options["callback-url"]):
        raise SystemExit(f"govi-simulator: --callback-url is not an http address: {options['callback-url']!r}")
    behaviour = Behaviour(options["delay"], options["drop"], bool(options["gzip"]), options["seed"])
    server = simulation(reactor, behaviour, lambda: str(options["callback-url"]))
    try:
        return serving(reactor, server, [options["listen"]])
    except CannotStart as error:
        raise SystemExit(f"govi-simulator: {error}") from None
