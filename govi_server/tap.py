"""The command ``twistd govi-cache``."""

from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from govi_server.application import NAME, make_service
from govi_server.errors import ConfigError, StartupError
from govi_server.settings_loader import load


class Options(usage.Options):
    """What can be said on the command line; it wins over the configuration file."""

    synopsis = "[options]"
    longdesc = "Serves the next departures of a stop, GET /kv55/<TimingPointCode>, from memory."
    optParameters = [
        ["config", "c", None, "Configuration file (TOML); etc/govi-cache.toml describes it."],
        ["callback", None, None, "Endpoint for the gateway's answers [default: tcp:8082:interface=127.0.0.1]."],
        ["source", "s", None, "Where departures come from: demo, govi or kv78turbo [default: demo]."],
        ["gateway-url", "g", None, "Where the GOVI gateway takes questions; means --source govi."],
        ["timetable", "t", None, "Folder of recorded KV7, *.ctx and *.gz; means --source kv78turbo."],
        ["admin", None, None, "Endpoint for operators, '' for none [default: tcp:8081:interface=127.0.0.1]."],
        ["manhole", None, None, "Endpoint for a Python prompt over SSH, such as tcp:2222:interface=127.0.0.1."],
        ["manhole-keys", None, None, "File of the public keys that may come in there."],
        ["snapshot", None, None, "File that keeps what is in memory for the next start [default: none]."],
        ["statistics", None, None, "File for the statistics log [default: none is kept]."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.listen: list[str] = []
        self.feed: list[str] = []

    def opt_listen(self, endpoint: str) -> None:
        """Endpoint to listen on, as often as there are [default: tcp:8080]."""
        self.listen.append(endpoint)

    opt_l = opt_listen

    def opt_feed(self, address: str) -> None:
        """ZeroMQ address of the KV78turbo feed, as often as there are, tried in turn; means --source kv78turbo."""
        self.feed.append(address)

    opt_f = opt_feed

    def settings(self) -> dict[str, Any]:
        """Give what was said, in the shape of the configuration file."""
        settings: dict[str, Any] = {}
        kv55 = {
            "callback": self["callback"],
            "source": self["source"] or self._meant_source(),
            "gateway_url": self["gateway-url"],
        }
        if said := {key: value for key, value in kv55.items() if value is not None}:
            settings["modules"] = {"kv55": said}
        feed = {"addresses": self.feed or None, "timetable": self["timetable"]}
        if said := {key: value for key, value in feed.items() if value is not None}:
            settings["feed"] = said
        if self.listen:
            settings["listen"] = self.listen
        if self["statistics"] is not None:
            settings["statistics"] = {"file": self["statistics"]}
        if self["snapshot"] is not None:
            settings["snapshot"] = {"file": self["snapshot"]}
        manhole = {"listen": self["manhole"], "keys": self["manhole-keys"]}
        if said := {key: value for key, value in manhole.items() if value is not None}:
            settings["manhole"] = said
        if self["admin"] is not None:
            settings["admin"] = {"listen": self["admin"]}
        return settings

    def _meant_source(self) -> str | None:
        """Give the source that the other options mean."""
        if self["gateway-url"] is not None:
            return "govi"
        return "kv78turbo" if self.feed or self["timetable"] is not None else None


def makeService(options: Options, reactor: Any = None) -> IService:
    """Return the service that the options describe.

    Raises SystemExit with one line of text if the configuration is unusable.
    """
    if reactor is None:
        from twisted.internet import reactor
    try:
        return make_service(load(options["config"], options.settings()), reactor)
    except (ConfigError, StartupError) as error:
        raise SystemExit(f"{NAME}: {error}") from None
