"""Applies a changed configuration on SIGHUP, as far as that is possible without a restart."""

from collections.abc import Callable, Iterator, Mapping
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

    config: the one in force. load: returns the current one, or raises ConfigError. appliers: apply settings, by their
    dotted keys; all others need a restart.
    """

    log = Logger()

    def __init__(
        self, config: Config, load: Callable[[], Config], appliers: Mapping[str, Callable[[Config], object]]
    ) -> None:
        self._in_force = dict(_settings(msgspec.to_builtins(config)))
        self._load = load
        self._appliers = appliers

    def reload(self) -> None:
        """Apply the settings that have changed; log those that need a restart. Keep all if the file is invalid."""
        try:
            config = self._load()
        except ConfigError as error:
            self.log.error("Configuration not reloaded: {error}", error="; ".join(str(error).splitlines()))
            return
        values = dict(_settings(msgspec.to_builtins(config)))
        changed = [key for key in {**self._in_force, **values} if self._in_force.get(key) != values.get(key)]
        for key in changed:
            if key in self._appliers:
                self._appliers[key](config)
                self._in_force[key] = values[key]
                self.log.info("{key}: reloaded", key=key)
            else:
                self.log.warn("{key}: has changed; needs a restart", key=key)


def _settings(table: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all settings with their dotted keys."""
    for key, value in table.items():
        path = f"{name}.{key}" if name else key
        if isinstance(value, dict):
            yield from _settings(value, path)
        else:
            yield path, value
