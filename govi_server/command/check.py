"""The command ``govi-cache check``, which validates a configuration without starting anything."""

import re
from collections.abc import Iterator
from typing import Any

import click
from msgspec import structs

from govi_server.application import make_service
from govi_server.command.completion import complete_file
from govi_server.command.locations import Locations, locate
from govi_server.command.options import parse, setting_options
from govi_server.departures.timing_point import TIMING_POINT_CODE_FORMAT, is_timing_point_code
from govi_server.errors import ConfigError, StartupError
from govi_server.kv78turbo.zmq_sockets import is_address
from govi_server.runtime.text import printable
from govi_server.settings import Config
from govi_server.settings_loader import Problem, load_valid, option_name, setting_key
from govi_server.sockets.endpoint_syntax import check_endpoint
from govi_server.sockets.systemd import socket_selector

SYSTEMD = re.compile("(haproxy:)?systemd:")
"""The beginning of an endpoint on a socket that only the service has, from its socket unit."""


@click.command(params=[*setting_options()])
@click.argument("file", shell_complete=complete_file)
def check(file: str, **values: Any) -> None:
    """Validate a configuration FILE, with the options that the server is started with.

    Prints all problems with their lines, and exits with status 1 if there are any. Nothing is started, opened or
    connected to; `govi-cache doctor` examines ports, files and connections.
    """
    problems = list(find_problems(file, parse(values)[1]))
    for problem in problems:
        click.echo(printable(problem))
    if problems:
        raise SystemExit(1)
    click.echo(f"{file}: valid")


def find_problems(path: str | None, options: dict[str, Any]) -> Iterator[str]:
    """Yield all problems of a configuration, each with the file and the line, or the option."""
    try:
        loaded = load_valid(path, options)
    except ConfigError as error:
        text = str(error).removeprefix("--config: ")
        line = re.search(r"\(at line (\d+), ", text)
        yield text if line is None else text.replace(f"{path}: ", f"{path}:{line[1]}: ", 1)
        return
    lines = locate(path) if path is not None else Locations({})
    problems = loaded.problems
    for key, text in _domain_problems(loaded.config):
        is_option = setting_key(key) in options
        problems.append(Problem(option_name(key) if is_option else key, text, "" if is_option else key))
    if not problems:
        problems += _problems_of_services(loaded.config)
    for problem in sorted(problems, key=lambda problem: lines.line(problem.key) if problem.key else 0):
        place = f"{path}:{lines.line(problem.key)}: " if problem.key and path is not None else ""
        yield f"{place}{problem.name}: {problem.text}"


def _domain_problems(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the keys and problems of values whose form the settings alone do not determine."""
    for key, endpoint in config.endpoints:
        try:
            check_endpoint(endpoint)
            if selector := SYSTEMD.match(endpoint):
                socket_selector(endpoint[selector.end() :])
        except ValueError as error:
            yield key, f"invalid endpoint {endpoint[:120]!r}: {error}"
    for index, address in enumerate(config.feed.addresses):
        if not is_address(address):
            yield f"feed.addresses[{index}]", f"invalid feed address {address[:120]!r} (expected tcp://host:port)"
    if config.admin.probe and not is_timing_point_code(config.admin.probe):
        yield "admin.probe", f"invalid TimingPointCode {config.admin.probe!r} (expected {TIMING_POINT_CODE_FORMAT})"


def _problems_of_services(config: Config) -> Iterator[Problem]:
    """Make the services of a configuration without starting them; yield the first error."""
    from twisted.internet import reactor

    try:
        make_service(_without_sockets(config), reactor)
    except (ConfigError, StartupError) as error:
        name, _, text = str(error).partition(": ")
        yield Problem(name, text, name.partition(" ")[0])


def _without_sockets(config: Config) -> Config:
    """Return a configuration with other endpoints in place of those on sockets from a socket unit."""

    def replaced(endpoint: str) -> str:
        return "tcp:0" if SYSTEMD.match(endpoint) else endpoint

    modules = {
        name: structs.replace(module, callback=replaced(module.callback)) for name, module in config.modules.items()
    }
    return structs.replace(
        config,
        listen=tuple(map(replaced, config.listen)),
        admin=structs.replace(config.admin, listen=replaced(config.admin.listen)),
        manhole=structs.replace(config.manhole, listen=replaced(config.manhole.listen)),
        modules=modules,
    )
