"""The simulation finds nothing in the program, is deterministic, and its planted faults apply."""

import os
import re
import subprocess
import sys
from shutil import which

from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.planted.__main__ import PATCHES, ROOT


def simulate(hash_seed: int) -> str:
    """Run a few virtual minutes of a seed in a process of its own; return its line."""
    command = [sys.executable, "-m", "tests.simulation", "--seed", "2", "--hours", "0.1"]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


class SimulationTests(SynchronousTestCase):
    """The simulation itself."""

    def test_seed_determines_what_clients_receive(self) -> None:
        """The same seed gives the same hash, whatever the hashes of strings are."""
        hashes = {re.findall(r"hash ([0-9a-f]{32}), ", simulate(n))[0] for n in (1, 2)}
        self.assertEqual(len(hashes), 1)

    def test_planted_faults_apply(self) -> None:
        """Each patch applies to the program as it is."""
        self.assertIsNotNone(which("patch"), "the command patch is required (apt install patch)")
        self.assertGreaterEqual(len(PATCHES), 20)
        for patch in PATCHES:
            command = ["patch", "--dry-run", "--strip=1", "--force", "--input", str(patch)]
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            self.assertEqual(result.returncode, 0, f"{patch.name}: {result.stdout}")
