"""tests/ports.py, the ports of programs under test."""

import subprocess
import sys

RESERVE = "from tests.ports import free_port; print(*(free_port() for _ in range(1000)), flush=True); input()"


def test_processes_get_different_ports() -> None:
    """Two processes with tests never take the same port: each would have a chance to listen first."""
    command = [sys.executable, "-c", RESERVE]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ports = []
    for process in processes:
        assert process.stdout is not None
        ports += process.stdout.readline().split()
    for process in processes:
        process.communicate("\n")
    assert len(set(ports)) == 2000
