"""What is wrong with the text of an endpoint, for operators: Twisted reports exceptions of Python. Pure."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from twisted.internet.error import VerifyError

MAX_UNIX_PATH_BYTES = 107
"""The longest path of a unix socket (unix(7))."""

MAX_CHARACTERS = 500
"""Longer texts are rejected, so that errors remain readable."""

_COLON, _EQUALS = re.compile(r"(?<!\\):"), re.compile(r"(?<!\\)=")  # a backslash escapes both
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _Value(NamedTuple):
    """A form of values: a noun phrase with its article, and the check."""

    noun: str
    is_valid: Callable[[str], object]


def _is_port(text: str) -> bool:
    return re.fullmatch("[0-9]{1,5}", text) is not None and int(text) <= 65535


def _is_unix_path(text: str) -> bool:
    return 0 < len(text.encode("utf-8", "surrogateescape")) <= MAX_UNIX_PATH_BYTES


_PORT = _Value("a port from 0 to 65535", _is_port)
_NUMBER = _Value("a whole number", re.compile("[0-9]{1,9}").fullmatch)
_ADDRESS = _Value("an address such as 127.0.0.1", re.compile(r"[^\s/]+").fullmatch)
_FILE = _Value("a file", bool)

_TCP = {"port": _PORT, "interface": _ADDRESS, "backlog": _NUMBER}
_SSL = {
    "port": _PORT,
    "privateKey": _FILE,
    "certKey": _FILE,
    "sslmethod": _Value(
        "a method such as TLS_METHOD", re.compile(r"(?:SSLv23|TLS|TLSv1(?:_[123])?)_METHOD").fullmatch
    ),
    "interface": _ADDRESS,
    "backlog": _NUMBER,
    "extraCertChain": _FILE,
    "dhParameters": _FILE,
}
_UNIX = {
    "address": _Value(f"a path of at most {MAX_UNIX_PATH_BYTES} bytes", _is_unix_path),
    "mode": _Value("an octal mode such as 660", re.compile("[0-7]{1,4}").fullmatch),
    "backlog": _NUMBER,
    "lockfile": _Value("0 or 1", re.compile("[01]").fullmatch),
}

_ARGUMENTS: Mapping[str, Mapping[str, _Value]] = {"tcp": _TCP, "tcp6": _TCP, "ssl": _SSL, "unix": _UNIX}
"""The arguments of each kind in order, of which the first is required."""

_IP_VERSIONS = {"tcp": 4, "ssl": 4, "tcp6": 6}


def check_endpoint(text: str) -> None:
    """Raise ValueError, whose text states what is expected, for an invalid text of a server endpoint."""
    if problem := _problem(text):
        raise ValueError(problem)


def parse_endpoint_text(text: str) -> tuple[str, dict[str, str]]:
    """Return the kind and the arguments of a valid endpoint, without a haproxy: around it."""
    kind, _, rest = text.removeprefix("haproxy:").partition(":")
    names = iter(_ARGUMENTS.get(kind, ()))
    values = {}
    for argument in _COLON.split(rest):
        name, *value = _EQUALS.split(argument, maxsplit=1)
        if not value:
            name, value = next(names, ""), [argument]
        values[name] = _unescaped(value[0])
    return kind, values


def have_same_address(text: str, other: str) -> bool:
    """Return whether only one of two valid endpoints can listen at a time."""
    (kind, values), (other_kind, others) = parse_endpoint_text(text), parse_endpoint_text(other)
    if kind not in _IP_VERSIONS or other_kind not in _IP_VERSIONS:
        return (kind, values) == (other_kind, others)
    port = values.get("port", "").lstrip("0")
    if not port or others.get("port", "").lstrip("0") != port:  # port 0 is any free one
        return False
    # Whether an endpoint of IPv6 without an address also takes the port of IPv4 depends on the system.
    version, address = _ip_address(kind, values)
    other_version, other_address = _ip_address(other_kind, others)
    overlap = address == other_address or not {"", "0.0.0.0", "::"}.isdisjoint((address, other_address))
    return version == other_version and overlap


def _ip_address(kind: str, values: dict[str, str]) -> tuple[int, str]:
    """Return the IP version and the address of an endpoint; "" if it has none."""
    address = values.get("interface", "")
    return 6 if ":" in address else _IP_VERSIONS[kind], address


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _problem(text: str) -> str:
    """Return what is wrong with the text of an endpoint, "" if nothing is."""
    if _CONTROL.search(text):
        return "it contains a control character"
    if len(text) > MAX_CHARACTERS:
        return f"it is longer than {MAX_CHARACTERS} characters"
    kind, separator, rest = text.partition(":")
    if kind == "haproxy":
        if rest.startswith("haproxy:"):
            return "haproxy can wrap only one endpoint"
        return _problem(rest) if rest else "the endpoint to wrap is missing, as in haproxy:tcp:8080"
    if kind == "stdio":
        return _unknown(kind)
    if kind not in _ARGUMENTS:  # checked by its parser, which may be a plugin of Twisted
        return ""
    return _problem_of_arguments(_COLON.split(rest) if separator else [], _ARGUMENTS[kind])


def _unknown(kind: str) -> str:
    return f"unknown kind {kind!r} (expected tcp, ssl, unix, systemd or haproxy)"


def _problem_of_arguments(texts: list[str], arguments: Mapping[str, _Value]) -> str:
    names, values = list(arguments), dict[str, str]()
    positions = iter(names)
    for text in texts:
        name, *value = _EQUALS.split(text, maxsplit=1)
        if not value:
            name, value = next(positions, ""), [text]
        if not name or name in values:
            return f"unexpected argument {text!r} (a colon in a value is written as \\:)"
        if name not in arguments:
            return f"unknown argument {name!r} (expected {', '.join(names[:-1])} or {names[-1]})"
        values[name] = _unescaped(value[0])
    if names[0] not in values:
        return f"the {names[0]} is missing"
    for name, text in values.items():
        if not arguments[name].is_valid(text):
            return f"invalid {name} {text!r} (expected {arguments[name].noun})"
    return ""


def parser_error(error: Exception) -> str:
    """Return the reason of an exception of an endpoint's parser in words for operators."""
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"cannot read {error.filename}: {reason}" if error.filename else reason
    if isinstance(error, VerifyError):
        return "the private key is not that of the certificate"
    text = str(error)
    if text.startswith("Unknown endpoint type: "):
        return _unknown(text.partition("'")[2].removesuffix("'"))
    if type(error) is ValueError and not text.startswith("invalid literal"):
        return text
    if type(error).__module__.startswith("OpenSSL"):
        return "not a certificate and its private key in PEM format"
    return "invalid arguments"
