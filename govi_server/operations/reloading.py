"""Applies a changed configuration on SIGHUP, as far as that is possible without a restart."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from operator import getitem
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.logger import Logger
from zope.interface import implementer

from govi_server.errors import ConfigError
from govi_server.runtime.program import IReloadable
from govi_server.settings import Config


@implementer(IReloadable)
class Reloading(Service):
    """Loads the configuration again.

    config: that of the start. load: returns the current one, or raises ConfigError. appliers: apply settings, by
    their dotted keys; all others need a restart.
    """

    log = Logger()

    def __init__(
        self, config: Config, load: Callable[[], Config], appliers: Mapping[str, Iterable[Callable[[Config], object]]]
    ) -> None:
        self.config = config
        """The configuration in force: that of the start, with the settings that were reloaded."""
        self._load = load
        self._appliers = appliers

    def reload(self) -> None:
        """Apply the settings that have changed; log those that need a restart. Keep all if the file is invalid."""
        try:
            config = self._load()
        except ConfigError as error:
            self.log.error("Configuration not reloaded: {error}", error="; ".join(str(error).splitlines()))
            return
        in_force = msgspec.to_builtins(self.config)
        previous, values = dict(_settings(in_force)), dict(_settings(msgspec.to_builtins(config)))
        changed = [key for key in {**previous, **values} if previous.get(key) != values.get(key)]
        for key in changed:
            if key in self._appliers and key in values:  # not in values: its module was removed
                for apply in self._appliers[key]:
                    apply(config)
                *tables, name = key.split(".")
                reduce(getitem, tables, in_force)[name] = values[key]
                self.log.info("{key}: reloaded", key=key)
            else:
                self.log.warn("{key}: has changed; needs a restart", key=key)
        self.config = msgspec.convert(in_force, Config)


def _settings(table: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all settings with their dotted keys."""
    for key, value in table.items():
        path = f"{name}.{key}" if name else key
        if isinstance(value, dict):
            yield from _settings(value, path)
        else:
            yield path, value
