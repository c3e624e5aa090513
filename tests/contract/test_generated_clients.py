"""Clients generated from /openapi.json compile, and fetch a board of the running demo.

The one in TypeScript needs npm, which downloads the generator and the compiler.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.contract.test_schemathesis import demo

CLIENTS = Path(__file__).with_name("clients")

EXPECTED = ["Station live", "400"]
"""The output of both programs."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run the demo; yield its URL and the path of its OpenAPI document."""
    folder = tmp_path_factory.mktemp("demo")
    with demo(folder) as url:
        path = folder / "openapi.json"
        path.write_bytes(urlopen(f"{url}/openapi.json").read())
        yield url, path


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command; return its output. Fails with the output if the command does."""
    process = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_python(server: tuple[str, Path], tmp_path: Path) -> None:
    """openapi-python-client generates a package that compiles; its functions return a board and a problem."""
    url, document = server
    generator = Path(sys.executable).with_name("openapi-python-client")
    run(
        generator,
        "generate",
        "--meta",
        "none",
        "--path",
        document,
        "--output-path",
        "govi_cache_client",
        cwd=tmp_path,
    )
    run(sys.executable, "-m", "compileall", "-q", "govi_cache_client", cwd=tmp_path)
    shutil.copy(CLIENTS / "board.py.txt", tmp_path / "board.py")  # not a module that mypy could check
    assert run(sys.executable, "board.py", url, cwd=tmp_path).splitlines() == EXPECTED


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_typescript(server: tuple[str, Path], tmp_path: Path) -> None:
    """openapi-typescript generates types with which a strict program compiles, and fetches a board and a problem."""
    url, document = server
    for name in ("package.json", "board.ts"):
        shutil.copy(CLIENTS / name, tmp_path)
    run("npm", "install", "--silent", "--no-audit", "--no-fund", cwd=tmp_path)
    run("npx", "openapi-typescript", document, "--output", "api.ts", cwd=tmp_path)
    options = ("--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "--types", "node")
    run("npx", "tsc", *options, "board.ts", cwd=tmp_path)
    assert run("node", "board.js", url, cwd=tmp_path).splitlines() == EXPECTED
