"""Tests of the errors of endpoints: one line in words for operators, with the setting, the value and the form."""

import re
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError
from govi_server.sockets.endpoint_syntax import have_same_address
from govi_server.sockets.listener import Listener

PORT = "(expected a port from 0 to 65535)"
MISSING = "No such file or directory"

INVALID = {
    "tcp": "the port is missing",
    "tcp:": f"invalid port '' {PORT}",
    "tcp:abc": f"invalid port 'abc' {PORT}",
    "tcp:-1": f"invalid port '-1' {PORT}",
    "tcp:65536": f"invalid port '65536' {PORT}",
    "tcp:8_0": f"invalid port '8_0' {PORT}",
    "tcp: 80": f"invalid port ' 80' {PORT}",
    "tcp:\u0663": f"invalid port '\u0663' {PORT}",
    "tcp6:x": f"invalid port 'x' {PORT}",
    "tcp:interface=::1": "unexpected argument '1' (a colon in a value is written as \\:)",
    "tcp:80:interface=": "invalid interface '' (expected an address such as 127.0.0.1)",
    "tcp:80:interface=a b": "invalid interface 'a b' (expected an address such as 127.0.0.1)",
    "tcp:80:backlog=x": "invalid backlog 'x' (expected a whole number)",
    "tcp:80:foo=1": "unknown argument 'foo' (expected port, interface or backlog)",
    "tcp:80:a:1:2": "unexpected argument '2' (a colon in a value is written as \\:)",
    "tcp:80:port=81": "unexpected argument 'port=81' (a colon in a value is written as \\:)",
    "tcp:80:": "invalid interface '' (expected an address such as 127.0.0.1)",
    "tcp:80\x00": "it contains a control character",
    "tcp:80\n": "it contains a control character",
    "ssl:": f"invalid port '' {PORT}",
    "ssl:443:privateKey=/absent": f"cannot read /absent: {MISSING}",
    "ssl:443:privateKey=/": "cannot read /: Is a directory",
    "ssl:443:privateKey=": "invalid privateKey '' (expected a file)",
    "ssl:443:privateKey=/proc/version": "not a certificate and its private key in PEM format",
    "ssl:443:sslmethod=foo": "invalid sslmethod 'foo' (expected a method such as TLS_METHOD)",
    "unix:": "invalid address '' (expected a path of at most 107 bytes)",
    f"unix:/{'x' * 107}": f"invalid address '/{'x' * 107}' (expected a path of at most 107 bytes)",
    "unix:/a:mode=rw": "invalid mode 'rw' (expected an octal mode such as 660)",
    "unix:/a:lockfile=x": "invalid lockfile 'x' (expected 0 or 1)",
    "haproxy:": "the endpoint to wrap is missing, as in haproxy:tcp:8080",
    "haproxy:tcp:abc": f"invalid port 'abc' {PORT}",
    "haproxy:haproxy:tcp:1": "haproxy can wrap only one endpoint",
    "foo:1": "unknown kind 'foo' (expected tcp, ssl, unix, systemd or haproxy)",
    "stdio:": "unknown kind 'stdio' (expected tcp, ssl, unix, systemd or haproxy)",
    "x" * 501: "it is longer than 500 characters",
}  # fmt: skip
"""Invalid endpoints, and their errors."""

VALID = (
    "tcp:0", "tcp:65535", "tcp:port=80", "tcp:80:127.0.0.1", "tcp:80:interface=\\:\\:1", "tcp:80:backlog=5",
    "tcp6:80", "unix:/a", "unix:/a\\:b:mode=660:lockfile=0", "haproxy:tcp:80:interface=127.0.0.1", "haproxy:unix:/a",
)  # fmt: skip

PYTHON = re.compile(
    r"Errno|literal|argument of|keyword|positional|index out of|NoneType|object has|Error\(|Traceback|_parse"
)
"""Words of Python's exceptions."""


def error_of(endpoint: str) -> str:
    """Return the error of an endpoint, "" if it is valid."""
    try:
        Listener(MemoryReactorClock(), "listen", endpoint, cast(Any, SimpleNamespace(name="test")))
    except StartupError as error:
        return str(error)
    return ""


SAME = [
    ("tcp:80", "tcp:80"), ("tcp:80:interface=127.0.0.1", "tcp:interface=127.0.0.1:port=80"),
    ("tcp:80", "ssl:80:interface=127.0.0.1"), ("haproxy:tcp:80", "tcp:80:interface=0.0.0.0"), ("tcp:80", "tcp:080"),
    ("tcp6:80", r"tcp6:80:interface=\:\:1"), (r"tcp:80:interface=\:\:", r"tcp6:80:interface=\:\:1"),
    ("unix:/a", "unix:address=/a"), ("systemd:name=a", "haproxy:systemd:name=a"),
]  # fmt: skip
DIFFERENT = [
    ("tcp:80", "tcp:81"), ("tcp:0", "tcp:0"), ("tcp:80:interface=127.0.0.1", "tcp:80:interface=127.0.0.2"),
    ("tcp:80", "tcp6:80"), ("tcp:80:interface=127.0.0.1", r"tcp:80:interface=\:\:1"), ("unix:/a", "unix:/b"),
    ("unix:80", "tcp:80"), ("systemd:name=a", "systemd:name=b"), ("systemd:name=a", "tcp:80"),
]  # fmt: skip


class EndpointTests(SynchronousTestCase):
    """Listeners of valid and of invalid endpoints."""

    def test_errors(self) -> None:
        """Each part of each kind of endpoint has an error that names it with what is expected."""
        for endpoint, problem in INVALID.items():
            self.assertEqual(error_of(endpoint), f"listen: invalid endpoint {endpoint[:120]!r}: {problem}")

    def test_valid_endpoints(self) -> None:
        """Valid endpoints have no error."""
        self.assertEqual([(endpoint, error_of(endpoint)) for endpoint in VALID if error_of(endpoint)], [])

    def test_same_address(self) -> None:
        """Two endpoints have the same address if only one of them can listen."""
        for first, second in (*SAME, *((second, first) for first, second in SAME)):
            self.assertTrue(have_same_address(first, second), (first, second))
        for first, second in (*DIFFERENT, *((second, first) for first, second in DIFFERENT)):
            self.assertFalse(have_same_address(first, second), (first, second))

    @settings(deadline=None)  # an endpoint may load the trusted certificates
    @given(
        st.sampled_from(("tcp", "tcp6", "ssl", "tls", "unix", "systemd", "haproxy", "haproxy:tcp", "", "x")),
        st.lists(
            st.builds(
                str.__add__,
                st.sampled_from(
                    ("", "port=", "interface=", "mode=", "index=", "name=", "domain=", "privateKey=", "=")
                ),
                st.sampled_from(
                    ("0", "x", "", "-1", "/absent", "\\", "\x07", "::1", "INET", "\udcff", "9" * 30, "é")
                ),
            ),
            max_size=4,
        ),
    )
    def test_error_is_one_line_in_words_for_operators(self, kind: str, arguments: list[str]) -> None:
        """Any endpoint is valid, or has an error of one line without the words of an exception."""
        error = error_of(":".join((kind, *arguments)))
        self.assertNotRegex(error, PYTHON)
        self.assertFalse(any(ord(character) < 32 for character in error), error)
