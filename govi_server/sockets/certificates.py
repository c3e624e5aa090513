"""Certificates of ssl: endpoints, which are loaded again when their files change."""

import os
from collections.abc import Callable, Sequence

from OpenSSL.SSL import Connection
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from govi_server.sockets.endpoint_syntax import parse_endpoint_text, parser_error

CHECK_INTERVAL = 10.0
"""Seconds between looks at the files, at the next new connection: a renewed certificate needs no signal."""

FILES = ("privateKey", "certKey", "extraCertChain", "dhParameters")
"""The arguments of an ssl: endpoint that are files."""


@implementer(IOpenSSLServerConnectionCreator)
class CertificateFiles:
    """The TLS options of an ssl: endpoint, from its files.

    endpoint: its text. load: reads the files, and returns new options. If that fails, as while a key is already
    renewed and its certificate is not, new connections get the previous certificate.
    """

    log = Logger()

    def __init__(
        self,
        endpoint: str,
        options: CertificateOptions,
        load: Callable[[], CertificateOptions],
        clock: IReactorTime,
    ) -> None:
        arguments = parse_endpoint_text(endpoint)[1]
        self._endpoint = endpoint
        self._paths = [arguments[name] for name in FILES if name in arguments] or ["server.pem"]
        self._load = load
        self._clock = clock
        self._identities = _identities(self._paths)
        self.options = options
        self._next_check = 0.0

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> Connection:
        """Return the OpenSSL connection of a new client."""
        now = self._clock.seconds()
        if not self._next_check - CHECK_INTERVAL <= now < self._next_check:
            self._next_check = now + CHECK_INTERVAL
            self.reload()
        return self.options.serverConnectionForTLS(protocol)

    def reload(self) -> None:
        """Load the files again if they have changed; log the result."""
        identities = _identities(self._paths)
        if identities == self._identities:
            return
        self._identities = identities
        try:
            self.options = self._load()
        except Exception as error:  # of OpenSSL, or of the file system
            self.log.error(
                "{endpoint}: certificate not reloaded, the previous one is used: {reason}",
                endpoint=self._endpoint, reason=parser_error(error),
            )  # fmt: skip
        else:
            self.log.info("{endpoint}: certificate reloaded", endpoint=self._endpoint)


def _identities(paths: Sequence[str]) -> list[tuple[int, int, int]]:
    """Return what changes with the content of files; zeros for a file that cannot be read."""
    identities = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            identities.append((0, 0, 0))
        else:
            identities.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return identities
