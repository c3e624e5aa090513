"""The command ``govi-cache serve``: twistd in the foreground, with the service of ``twistd govi-cache``."""

import sys
from collections.abc import Iterator
from typing import Any

import click
from twisted.scripts import twistd

from govi_server.command.options import arguments, config_option, setting_options
from twisted.plugins.govi_plugins import govi_cache


class ServerOptions(twistd.ServerOptions):  # type: ignore[misc, name-defined]  # it depends on the platform
    """twistd's options with one subcommand.

    Plugins are not searched: the cache of the search can often not be written, which twistd would log.
    """

    @property
    def subCommands(self) -> Iterator[tuple[str, None, Any, str]]:
        """The subcommand, in the form that twistd expects."""
        self.loadedPlugins = {govi_cache.tapname: govi_cache}
        yield govi_cache.tapname, None, govi_cache.options, govi_cache.description


@click.command(params=[config_option(), *setting_options()])
def serve(**values: Any) -> None:
    """Serve departures until SIGTERM or Ctrl-C.

    This is `twistd --nodaemon --pidfile= govi-cache`, with the same options. SIGHUP reloads certificates, lists of
    clients, log levels and log files.
    """
    config = ServerOptions()
    config.parseOptions(["--nodaemon", "--pidfile=", govi_cache.tapname, *arguments(values)])
    sys.stdout.flush()
    twistd.runApp(config)
