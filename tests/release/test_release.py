"""What `make release` builds: the same bytes from the same files, and nothing else."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from govi_server.runtime.version import VERSION

ROOT = Path(__file__).parents[2]


def build(directory: Path, umask: int) -> Path:
    """Build the release of this checkout, copied to a directory; return the directory of the results."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True, text=True)
    previous = os.umask(umask)
    try:
        for name in listing.stdout.split():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, path)
            path.chmod((0o777 if os.access(ROOT / name, os.X_OK) else 0o666) & ~umask)
        environment = {**os.environ, "PYTHON": sys.executable, "TZ": f"UTC{umask}"}
        subprocess.run([directory / ".ci/release"], env=environment, check=True, stdout=subprocess.DEVNULL)
    finally:
        os.umask(previous)
    return directory / "dist"


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the results of two builds, on two paths with two umasks."""
    return (
        build(tmp_path_factory.mktemp("one"), 0o022),
        build(tmp_path_factory.mktemp("two") / "with a longer path", 0o077),
    )


def test_builds_are_equal(builds: tuple[Path, Path]) -> None:
    """Both builds have the same files with the same bytes."""
    first, second = ({path.name: path.read_bytes() for path in sorted(build.iterdir())} for build in builds)
    assert list(first) == list(second)
    assert {name for name in first if first[name] != second[name]} == set()
    assert {Path(name).suffix for name in first} == {"", ".whl", ".gz", ".json", ".txt"}


def test_contents(builds: tuple[Path, Path]) -> None:
    """The wheel has the program, its data and its command; the sdist can be built; neither has caches or keys."""
    wheel = zipfile.ZipFile(next(builds[0].glob("*.whl"))).namelist()
    with tarfile.open(next(builds[0].glob("*.tar.gz"))) as archive:
        sdist = archive.getnames()
    assert {"govi_server/tap.py", "govi_server/pages/texts.toml", "twisted/plugins/govi_plugins.py"} <= set(wheel)
    assert f"govi_server-{VERSION}.dist-info/entry_points.txt" in wheel
    assert f"govi_server-{VERSION}/pyproject.toml" in sdist
    assert [name for name in (*wheel, *sdist) if name.endswith((".pyc", ".pem", "dropin.cache"))] == []


def test_sbom(builds: tuple[Path, Path]) -> None:
    """The SBOM is CycloneDX of this version, with all locked dependencies and hashes; it has no time or serial."""
    sbom = json.loads(next(builds[0].glob("*.cdx.json")).read_text())
    assert (sbom["bomFormat"], sbom["metadata"]["component"]["version"]) == ("CycloneDX", VERSION)
    assert "serialNumber" not in sbom
    assert "timestamp" not in sbom["metadata"]
    locked = {
        line.partition("==")[0]
        for line in (ROOT / "requirements-release.txt").read_text().splitlines()
        if "==" in line.partition(" ")[0]
    }
    assert {component["name"] for component in sbom["components"]} == locked
    for component in sbom["components"]:
        assert any(reference.get("hashes") for reference in component["externalReferences"]), component["name"]


def test_locked_dependencies(builds: tuple[Path, Path]) -> None:
    """Every direct dependency is locked, and has a licence in the report."""
    licences = next(builds[0].glob("*.licences.txt")).read_text()
    for name in ("twisted", "lxml", "msgspec", "pyzmq", "click", "bcrypt"):
        assert f"\n{name} " in f"\n{licences}"
