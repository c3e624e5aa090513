"""Tests of the direction of imports between the rooms of govi_server (docs/architecture.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[1]

_BASE = {"settings", "errors"}
_RUNTIME = {"runtime"} | _BASE
_HTTP = {"http", "sockets", "statistics"} | _RUNTIME
_SERVER = {"http.caching"} | _HTTP
_DOMAIN = {"departures"} | _RUNTIME

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "settings": {"errors"},
    "settings_loader": _BASE,
    "runtime": _BASE,
    "sockets": _RUNTIME,
    "statistics": _RUNTIME,
    "http": _HTTP,
    "http.caching": {"http", "statistics"},
    "openapi": {"http"},
    "server": _SERVER,
    "web_handler": _SERVER,
    "request_handler": {"server", "web_handler"} | _SERVER,
    "departures": _RUNTIME,
    "kv55": _DOMAIN,
    "kv78turbo": _DOMAIN,
    "pages": {"departures", "runtime"},
    "documents": {"pages", "kv78turbo", "departures", "runtime"},
    "modules": {"documents", "pages", "openapi", "kv55", "kv78turbo", "web_handler"} | _SERVER | _DOMAIN,
    "operations": {"server", "kv55", "kv78turbo"} | _SERVER | _DOMAIN,
    "simulator": {"request_handler", "server", "web_handler", "kv55", "kv78turbo"} | _SERVER | _DOMAIN,
    "command": {"statistics", "kv78turbo"} | _DOMAIN,
    "application": {
        "request_handler", "server", "web_handler", "openapi", "documents", "pages", "modules", "operations",
        "simulator", "kv55", "kv78turbo",
    } | _SERVER | _DOMAIN,
    "tap": {"application", "settings_loader"} | _BASE,
}  # fmt: skip
"""What the files of each room may import, besides those of their own room."""

OFFENDERS: set[tuple[str, str]] = set()
"""Imports that the table does not allow yet; the list only gets shorter."""

CIRCLES = 0
"""Circles of files that are left; the number only gets smaller."""


def _room(module: str) -> str:
    """Return the room of a module: its folder, or its own name at the root of the package."""
    parts = module.split(".")[1:]
    return "http.caching" if parts[:2] == ["http", "caching"] else parts[0] if parts else ""


def _modules() -> dict[str, Path]:
    """Return the paths of all modules of the package, by dotted name."""
    names = {}
    for path in sorted((ROOT / "govi_server").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def _imports(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of the package that a file imports: at the top, in functions, for types alone, as data."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("govi_server"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("govi_server."))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "files":
            yield from (str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))


def _circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        stack = list(graph[start])
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                stack.extend(graph[node])
        return seen

    reach = {node: reached(node) for node in graph}
    groups = {frozenset(n for n in reach[node] if node in reach[n]) for node in graph if node in reach[node]}
    return sorted(sorted(group) for group in groups)


class ImportTests(SynchronousTestCase):
    """The direction of imports."""

    def setUp(self) -> None:
        modules = _modules()
        self.graph = {name: set(_imports(path, modules)) - {name} for name, path in modules.items()}

    def test_every_import_is_allowed(self) -> None:
        """A file imports only its own room and those that the table allows to it."""
        against = [
            f"{module} imports {imported}: {_room(module)} may not import {_room(imported)}"
            for module, imports in self.graph.items()
            for imported in sorted(imports)
            if _room(imported) not in ALLOWED.get(_room(module), set()) | {_room(module)}
            and (module.partition(".")[2], imported.partition(".")[2]) not in OFFENDERS
        ]
        self.assertEqual(against, [])

    def test_circles_get_fewer(self) -> None:
        """The circles of files are those that are known."""
        self.assertEqual(len(_circles(self.graph)), CIRCLES)

    def test_every_room_is_in_the_table(self) -> None:
        """The table names the rooms that exist, and no others."""
        self.assertEqual({_room(module) for module in self.graph} - {""}, set(ALLOWED))
