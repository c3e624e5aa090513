"""Generate etc/govi-cache.toml and docs/configuration.md from the settings: `make configuration`."""

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

from govi_server.settings import SOURCES
from govi_server.settings_loader import CONFIGURATION, Setting, Table

ROOT = Path(__file__).parents[1]
TOML = ROOT / "etc/govi-cache.toml"
PAGE = ROOT / "docs/configuration.md"
MAX_COLUMNS = 118

TOML_HEAD = """\
The configuration of govi-cache: twistd -n govi-cache --config etc/govi-cache.toml

Every setting is here with its default; a file needs only those that differ. Only the source of departures has no
default: remove the # before one of them. Command-line options override the file.
An endpoint is a Twisted server endpoint: tcp:8080, tcp:8080:interface=127.0.0.1, ssl:8443:privateKey=key.pem,
unix:/run/govi/http.sock, systemd:domain=INET:index=0, haproxy:tcp:8080.

Written by `make configuration` from govi_server/settings.py."""

PAGE_HEAD = """\
<!-- Written by `make configuration` from govi_server/settings.py: change it there. -->
# Configuration

`govi-cache` reads a TOML file, `twistd -n govi-cache --config govi-cache.toml`, and the options of its command line.
[etc/govi-cache.toml](../etc/govi-cache.toml) has every setting with its default; a file needs only those that differ.
Only the source of departures, `modules.kv55.source`, has no default: without it, and without an option that implies
it, the program does not start. Options override the file, and the file overrides the defaults. `twistd govi-cache
--help` lists the options.

An endpoint is a [Twisted server endpoint](https://docs.twisted.org/en/stable/core/howto/endpoints.html#servers):
`tcp:8080`, `tcp:8080:interface=127.0.0.1`, `ssl:8443:privateKey=key.pem:certKey=chain.pem`,
`unix:/run/govi/http.sock`, `systemd:domain=INET:index=0`, `haproxy:tcp:8080`.

The program does not start with an invalid configuration. It names the setting, or the option, and what it expects:

```
govi-cache: govi-cache.toml: cache.frehs: unknown setting; did you mean 'cache.fresh'?
govi-cache: govi-cache.toml: modules.kv55.source: invalid value 'gtfs' (expected demo, govi or kv78turbo)
govi-cache: --listen: invalid endpoint '9000'; did you mean 'tcp:9000'?
```
"""


def tables(table: Table = CONFIGURATION, name: str = "") -> Iterator[tuple[str, Table]]:
    """Yield a table and all tables in it, with their names in the file."""
    if table.settings:
        yield name, table
    for key, inner in table.tables.items():
        yield from tables(inner, f"{name}.{key}" if name else key)


def toml_value(value: Any) -> str:
    """Return a default value as TOML."""
    if isinstance(value, int) and value > 9999:
        return f"{value:_}"
    return json.dumps(value)


def toml_file() -> str:
    """Return the annotated example, etc/govi-cache.toml."""
    lines = [f"# {line}".rstrip() for line in TOML_HEAD.split("\n")]
    for name, table in tables():
        if name:
            lines += ["", "", *_comment(table.description.replace("\n\n", " ").replace("\n", " ")), f"[{name}]"]
        else:
            lines.append("")
        for key, setting in table.settings.items():
            unit = f"  # {setting.type.unit}" if setting.type.unit else ""
            lines += _comment(setting.description)
            if key == "source":
                lines += [f"#{key} = {toml_value(source)}" for source in SOURCES]
            else:
                lines.append(f"{key} = {toml_value(setting.default)}{unit}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return wrap(text, MAX_COLUMNS, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def page() -> str:
    """Return the page of all settings, docs/configuration.md."""
    parts = [PAGE_HEAD]
    for name, table in tables():
        parts.append(f"## `[{name}]`\n" if name else "## Top level\n")
        if name:
            parts.append(f"{_markdown(table.description)}\n")
        rows = (_row(f"{name}.{key}" if name else key, setting) for key, setting in table.settings.items())
        parts.append("\n".join(["| setting | default | unit | meaning |", "|---|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _row(key: str, setting: Setting) -> str:
    option = f" Option: `--{setting.option.name}`." if setting.option else ""
    meaning = _markdown(setting.description) + option
    default = f"`{toml_value(setting.default)}`" if key != "modules.kv55.source" else "none"
    return f"| `{key}` | {default} | {setting.type.unit} | {meaning} |"


def _markdown(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", r"\*")


if __name__ == "__main__":
    TOML.write_text(toml_file(), "utf-8")
    PAGE.write_text(page(), "utf-8")
