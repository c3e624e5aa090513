"""Tests of the direction of imports between the packages of govi_server (docs/architecture.md)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
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
    "settings_loader": {"sockets"} | _BASE,
    "runtime": _BASE,
    "sockets": _RUNTIME,
    "statistics": _RUNTIME,
    "http": _HTTP,
    "http.caching": {"http", "statistics", "runtime"},
    "openapi": {"http"},
    "server": _SERVER,
    "web_handler": _SERVER,
    "request_handler": {"server", "web_handler"} | _SERVER,
    "departures": _RUNTIME,
    "kv55": {"sockets"} | _DOMAIN,
    "kv78turbo": {"planning"} | _DOMAIN,
    "planning": _DOMAIN,
    "sharing": {"kv55", "sockets"} | _DOMAIN,
    "pages": {"departures", "runtime"},
    "documents": {"pages", "kv78turbo", "departures", "runtime"},
    "modules": {"documents", "pages", "openapi", "kv55", "kv78turbo", "web_handler"} | _SERVER | _DOMAIN,
    "operations": {"settings_loader", "server", "workers", "kv55", "kv78turbo", "planning", "sharing"}
    | _SERVER
    | _DOMAIN,
    "simulator": {"request_handler", "server", "web_handler", "kv55", "kv78turbo"} | _SERVER | _DOMAIN,
    "workers": {"request_handler", "server", "web_handler"} | _SERVER,
    "feed_proxy": {"operations", "kv78turbo"} | _HTTP | _DOMAIN,
    "command": {"application", "settings_loader", "tap", "operations", "kv78turbo", "sharing"} | _HTTP | _DOMAIN,
    "sources": {
        "settings_loader", "request_handler", "server", "modules", "operations", "sharing", "simulator", "kv55",
        "kv78turbo", "planning",
    } | _SERVER | _DOMAIN,
    "application": {
        "sources", "settings_loader", "request_handler", "server", "web_handler", "openapi", "pages", "modules",
        "operations", "workers", "simulator", "kv55",
    } | _SERVER | _DOMAIN,
    "tap": {"application", "settings_loader"} | _RUNTIME,
}  # fmt: skip
"""The other packages from which the files of each package may import."""

ONLY = {
    ("openapi", "http"): {"http.error_responses", "http.parameters"},
    ("documents", "pages"): {"pages.texts"},
    ("feed_proxy", "kv78turbo"): {"kv78turbo.subscriber", "kv78turbo.zmq_sockets"},
    ("feed_proxy", "operations"): {"operations.site"},
    ("kv55", "sockets"): {"sockets.transport"},
    ("sharing", "sockets"): {"sockets.transport"},
    ("sharing", "kv55"): {"kv55.gateway", "kv55.messages", "kv55.parsing"},
    ("operations", "sharing"): {"sharing.status"},
    ("command", "operations"): {"operations.callback_reach", "operations.configuration"},
    ("command", "http"): {"http.addresses"},
    ("modules", "modules"): {
        "modules.display_source", "modules.event_channel", "modules.feed_responses", "modules.ovapi_operations",
        "modules.ovapi_paths", "modules.query_parameters",
    },
}  # fmt: skip
"""Of some packages, only these files: URL modules share code, but do not import each other."""


def _package(module: str) -> str:
    """Return the package of a module: its directory, or its own name at the root of govi_server."""
    parts = module.split(".")[1:]
    return "http.caching" if parts[:2] == ["http", "caching"] else parts[0] if parts else ""


def _modules() -> dict[str, Path]:
    """Return the paths of all modules of govi_server, by dotted name."""
    names = {}
    for path in sorted((ROOT / "govi_server").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def _imports(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of govi_server that a file imports, in functions and for types as well, or reads as data."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}: relative import")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("govi_server"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("govi_server."))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "files":
            yield from (str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))


@cache
def _graph() -> dict[str, set[str]]:
    """Return the modules that each module imports."""
    modules = _modules()
    return {name: set(_imports(path, modules)) - {name} for name, path in modules.items()}


def _is_allowed(module: str, imported: str) -> bool:
    """Return whether one module may import another."""
    packages = package, imported_package = _package(module), _package(imported)
    only = ONLY.get(packages)
    if only is not None and imported.partition(".")[2] not in only:
        return False
    return imported_package in ALLOWED.get(package, set()) | {package}


def _circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that can reach each other."""

    def reachable_from(start: str) -> set[str]:
        visited: set[str] = set()
        stack = list(graph[start])
        while stack:
            node = stack.pop()
            if node not in visited:
                visited.add(node)
                stack.extend(graph[node])
        return visited

    reachable = {node: reachable_from(node) for node in graph}
    groups = {
        frozenset(n for n in reachable[node] if node in reachable[n]) for node in graph if node in reachable[node]
    }
    return sorted(sorted(group) for group in groups)


class ImportTests(SynchronousTestCase):
    """The direction of imports."""

    def setUp(self) -> None:
        self.graph = _graph()

    def test_every_import_is_allowed(self) -> None:
        """A file imports only from its own package and from those that the table allows."""
        violations = [
            f"{module} imports {imported}: {_package(module)} may not import {_package(imported)}"
            for module, imports in self.graph.items()
            for imported in sorted(imports)
            if not _is_allowed(module, imported)
        ]
        self.assertEqual(violations, [])

    def test_no_circles(self) -> None:
        """No file or package imports itself through others."""
        self.assertEqual(_circles(self.graph), [])
        packages: dict[str, set[str]] = {}
        for module, imports in self.graph.items():
            packages.setdefault(_package(module), set()).update(
                {_package(name) for name in imports} - {_package(module)}
            )
        self.assertEqual(_circles(packages), [])

    def test_every_package_is_in_the_table(self) -> None:
        """The table contains exactly the existing packages."""
        self.assertEqual({_package(module) for module in self.graph} - {""}, set(ALLOWED))

    def test_http_half_imports_no_domain(self) -> None:
        """Neither request_handler nor a worker loads the domain, nor the libraries that only that requires."""
        for module, others in ("request_handler", set[str]()), ("workers.process", {"workers"}):
            self.check_imports(module, others | _SERVER | {"request_handler", "server", "web_handler"})

    def test_worker_needs_no_openssl(self) -> None:
        """A worker without TLS runs without the packages that workers.__main__ excludes, which need 20 MB."""
        code = (
            "import sys; sys.argv = ['', '1']; sys.modules['ctypes'] = None\n"
            "try: import govi_server.workers.__main__\n"
            "except ImportError as error: print(error)\n"
            "del sys.modules['ctypes']; import govi_server.workers.process; from twisted.internet import reactor\n"
            "print(*(name for name, module in sys.modules.items() if module))"
        )
        output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        first, *modules = output.stdout.split("\n")
        self.assertIn("ctypes", first)  # process.py was reached
        self.assertIn("govi_server.workers.process", " ".join(modules).split())
        self.assertEqual({"OpenSSL", "ssl", "cryptography"} & set(" ".join(modules).split()), set())

    def check_imports(self, module: str, allowed: set[str]) -> None:
        """Check that importing a module loads it, and besides it only these packages."""
        code = f"import sys, govi_server.{module}; print(*sys.modules)"
        output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        loaded = {_package(name) for name in output.stdout.split() if name.startswith("govi_server.")}
        self.assertIn(_package(f"govi_server.{module}"), loaded)
        self.assertEqual(loaded - allowed, set())
        self.assertEqual({"lxml", "zmq", "pyproj"} & set(output.stdout.split()), set())
