"""The command ``govi-cache``.

click: subcommands with one style of help and errors, and completion for bash, zsh and fish.
"""

from importlib import import_module
from typing import Any

import click

from govi_server.runtime.version import VERSION

COMMANDS = {
    "serve": "Serve departures, as `twistd --nodaemon govi-cache` does.",
    "check": "Validate a configuration file.",
    "config": "Print the configuration in force, and where each value is set.",
    "doctor": "Examine this machine and the sources of departures.",
    "record": "Record the live feed, until Ctrl-C.",
    "stats": "Report on statistics logs.",
}
"""The commands with their descriptions. Each is imported when it is run, with what it needs."""


class Commands(click.Group):
    """The commands, each the attribute of its name in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"govi_server.command.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of the commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="govi-cache", message="%(prog)s %(version)s")
def main() -> Any:
    """Departures of public transport stops, from memory.

    For completion in bash, add to ~/.bashrc:  eval "$(_GOVI_CACHE_COMPLETE=bash_source govi-cache)"
    """


if __name__ == "__main__":
    main(prog_name="govi-cache")
