"""The command ``govi-cache doctor``, which examines what the program needs of its surroundings."""

import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NoReturn

import click

from govi_server.command.certificates import check_certificates
from govi_server.command.check import find_problems
from govi_server.command.connections import check_engine, check_feed, check_gateways, check_planning
from govi_server.command.findings import Finding, fail
from govi_server.command.machine import check_clock, check_files, check_open_files, check_ports
from govi_server.command.options import config_option, parse, setting_options
from govi_server.runtime.text import printable
from govi_server.settings import Config
from govi_server.settings_loader import load

COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(params=[config_option(), *setting_options()])
def doctor(**values: Any) -> NoReturn:
    """Examine this machine and the sources of departures.

    Takes the options of `govi-cache serve`, and should run as the user of the server. Looks at ports, clock, limit
    of open files, files and their permissions, certificates, and connections to gateways, the live feed, the
    publisher of GTFS and the engine; says what to do about each problem. Exits with status 1 after a failure. Sends
    no request to a gateway.
    """
    path, options = parse(values)
    if problems := list(find_problems(path, options)):
        findings = report(fail("configuration", problem, "") for problem in problems)
    else:
        findings = report(examine(load(path, options), path, datetime.now(UTC)))
    sys.exit(any(finding.level == "fail" for finding in findings))


def examine(config: Config, path: str | None, now: datetime) -> Iterator[Finding]:
    """Yield all findings, as they are made."""
    yield from check_ports(config, path)
    yield from check_clock(now)
    yield from check_open_files(config)
    yield from check_files(config, path, now)
    yield from check_certificates(config, now)
    yield from check_gateways(config, now)
    yield from check_feed(config)
    yield from check_planning(config, now)
    yield from check_engine(config)


def report(findings: Iterable[Finding]) -> list[Finding]:
    """Print findings; return them."""
    reported = []
    for finding in findings:
        level = click.style(f"{finding.level:5}", fg=COLORS[finding.level])
        click.echo(f"{level} {finding.subject}: {printable(finding.text)}")
        if finding.advice:
            click.echo(f"      -> {printable(finding.advice)}")
        reported.append(finding)
    return reported
