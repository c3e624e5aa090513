"""The command ``twistd govi-feed-proxy``: its options and its service."""

from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from govi_server.errors import StartupError
from govi_server.feed_proxy.proxy import FeedProxy
from govi_server.feed_proxy.site import ProxySite
from govi_server.runtime.options import Options as ProgramOptions
from govi_server.runtime.printable_log import install
from govi_server.runtime.program import Program, open_log_file
from govi_server.runtime.text import printable
from govi_server.runtime.version import version_text
from govi_server.sockets.listener import Listener

NAME = "govi-feed-proxy"


class Options(ProgramOptions):
    """The command line."""

    program = NAME
    synopsis = "[options]"
    longdesc = (
        "Subscribes to the live feed (KV78turbo) once, and publishes its messages over ZeroMQ for any number of "
        "govi-cache servers: govi-cache --feed ADDRESS, with the address of --publish."
    )
    optParameters = [
        [
            "publish",
            "p",
            None,
            "ZeroMQ address to publish on, such as tcp://10.0.0.5:7817, tcp://*:7817 or ipc:///run/govi/feed.",
        ],
        [
            "admin",
            "a",
            "tcp:8084:interface=127.0.0.1",
            "Endpoint for operators, never public, with /health and /metrics; empty: disabled.",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["feeds"] = []
        self["hosts"] = []

    def opt_feed(self, address: str) -> None:
        """ZeroMQ address of the feed, such as tcp://pubsub.besteffort.ndovloket.nl:7817. [repeatable]"""
        self["feeds"].append(address)

    opt_f = opt_feed

    def opt_admin_host(self, name: str) -> None:
        """Name in URLs of --admin besides IP addresses and localhost; other names get 421. [repeatable]"""
        self["hosts"].append(name)

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        print(version_text(NAME))
        raise SystemExit

    def postOptions(self) -> None:
        """Raise UsageError if a required option is missing."""
        for option, key in (("--feed", "feeds"), ("--publish", "publish")):
            if not self[key]:
                raise usage.UsageError(f"{option}: required, a ZeroMQ address such as tcp://127.0.0.1:7817")


def makeService(options: Options, reactor: Any = None) -> IService:
    """Return the proxy's service.

    Raises SystemExit with a one-line message if the options are invalid.
    """
    if reactor is None:
        from twisted.internet import reactor
    install()
    try:
        services = Program(reactor, open_log_file(options.parent))
        proxy = FeedProxy(reactor, options["feeds"], options["publish"])
        if options["admin"]:
            site = ProxySite(proxy, options["hosts"])
            services.addService(Listener(reactor, "--admin", options["admin"], site))
        services.addService(proxy)
        return services
    except StartupError as error:
        raise SystemExit(f"{NAME}: {printable(str(error))}") from None
