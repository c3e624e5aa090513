"""Completion in shells. Values are not checked here: the errors of the configuration are more specific."""

from click import Context, Parameter
from click.shell_completion import CompletionItem

from govi_server.settings import SOURCES


def complete_file(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a file."""
    return [CompletionItem(incomplete, type="file")]


def complete_source(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a source of departures."""
    return [CompletionItem(source) for source in SOURCES if source.startswith(incomplete)]
