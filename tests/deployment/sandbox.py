"""Run a command as a unit's hardening directives would: python sandbox.py UNIT COMMAND...

For machines without a running systemd. Applies with libseccomp and prctl what systemd.exec(5) says of
NoNewPrivileges, MemoryDenyWriteExecute, RestrictAddressFamilies, RestrictNamespaces, RestrictRealtime,
LockPersonality, SystemCallFilter and SystemCallErrorNumber; the directives about files and users are not applied.
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from ctypes import c_char_p, c_int, c_uint, c_uint32, c_uint64, c_void_p
from functools import cache

ALLOW = 0x7FFF0000
EQUAL, NOT_EQUAL, MASKED = 4, 1, 7
PROT_WRITE_EXEC, PROT_EXEC = 6, 4
NAMESPACE_FLAGS = 0x7E020080
NO_NEW_PRIVILEGES, MEMORY_DENY_WRITE_EXECUTE = 38, 65


class Compare(ctypes.Structure):
    """A condition of a rule: struct scmp_arg_cmp."""

    _fields_ = (("argument", c_uint), ("operator", c_int), ("a", c_uint64), ("b", c_uint64))


def directives(unit: str) -> dict[str, list[str]]:
    """Return the values of each directive of a unit file."""
    values: dict[str, list[str]] = {}
    with open(unit) as file:
        for line in file.read().replace("\\\n", " ").splitlines():
            if "=" in line and not line.startswith(("#", ";")):
                name, _, value = line.partition("=")
                values.setdefault(name.strip(), []).append(value.strip())
    return values


@cache
def system_calls(name: str) -> frozenset[str]:
    """Return the system calls of a group such as @privileged, or the name itself."""
    if not name.startswith("@"):
        return frozenset({name})
    output = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    lines = (line.strip() for line in output.stdout.splitlines()[1:])
    return frozenset().union(*(system_calls(line) for line in lines if line and not line.startswith("#")))


def allowed_calls(filters: list[str]) -> frozenset[str]:
    """Return the system calls that values of SystemCallFilter allow; the first one is a list of allowed ones."""
    allowed: frozenset[str] = system_calls("@default")
    for value in filters:
        names = frozenset().union(*map(system_calls, value.lstrip("~").split()))
        allowed = allowed - names if value.startswith("~") else allowed | names
    return allowed


class Filter:
    """A seccomp filter with a default action."""

    def __init__(self, action: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = c_void_p
        self._library.seccomp_syscall_resolve_name.argtypes = [c_char_p]
        self._library.seccomp_rule_add_array.argtypes = [c_void_p, c_uint32, c_int, c_uint, c_void_p]
        self._library.seccomp_load.argtypes = [c_void_p]
        self._context = self._library.seccomp_init(c_uint32(action))

    def add(self, action: int, name: str, *conditions: Compare) -> None:
        """Add a rule for a system call; one that this machine does not have is ignored."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        array = (Compare * len(conditions))(*conditions)
        if number >= 0:
            result = self._library.seccomp_rule_add_array(self._context, action, number, len(conditions), array)
            if result:
                raise OSError(-result, f"{name}: {os.strerror(-result)}")

    def load(self) -> None:
        """Apply the filter to this process and those that it starts."""
        result = self._library.seccomp_load(self._context)
        if result:
            raise OSError(-result, os.strerror(-result))


def error(number: int) -> int:
    """Return the action that lets a call fail with an error."""
    return 0x00050000 | number


def restrict(unit: dict[str, list[str]]) -> None:
    """Apply the directives to this process."""

    def is_on(name: str) -> bool:
        return unit.get(name, ["no"])[-1] == "yes"

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    rules = Filter(ALLOW)
    if is_on("MemoryDenyWriteExecute"):
        writable = Compare(2, MASKED, PROT_WRITE_EXEC, PROT_WRITE_EXEC)
        rules.add(error(errno.EPERM), "mmap", writable)
        for name in ("mprotect", "pkey_mprotect"):
            rules.add(error(errno.EPERM), name, Compare(2, MASKED, PROT_EXEC, PROT_EXEC))
    if families := unit.get("RestrictAddressFamilies"):
        numbers = {int(getattr(socket, name)) for name in families[-1].split()}
        for number in set(range(46)) - numbers:
            rules.add(error(errno.EAFNOSUPPORT), "socket", Compare(0, EQUAL, number, 0))
    if is_on("RestrictNamespaces"):
        for bit in range(32):
            if NAMESPACE_FLAGS & 1 << bit:
                for name in ("clone", "unshare"):
                    rules.add(error(errno.EPERM), name, Compare(0, MASKED, 1 << bit, 1 << bit))
        rules.add(error(errno.EPERM), "setns")
        rules.add(error(errno.ENOSYS), "clone3")
    if is_on("RestrictRealtime"):
        for policy in (1, 2, 6):
            rules.add(error(errno.EPERM), "sched_setscheduler", Compare(1, EQUAL, policy, 0))
    if is_on("LockPersonality"):
        rules.add(error(errno.EPERM), "personality", Compare(0, NOT_EQUAL, 0, 0))
    rules.load()
    if filters := unit.get("SystemCallFilter"):
        number = getattr(errno, unit["SystemCallErrorNumber"][-1])
        calls = Filter(error(number))
        for name in sorted(allowed_calls(filters)):
            calls.add(ALLOW, name)
        calls.add(ALLOW, "execve")  # of the command itself, which systemd starts
        calls.load()


if __name__ == "__main__":
    restrict(directives(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
