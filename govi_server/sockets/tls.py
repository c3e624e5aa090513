"""TLS transports that are freed when their connection ends."""

from twisted.protocols.tls import BufferingTLSTransport
from twisted.python.failure import Failure


class TLSTransport(BufferingTLSTransport):
    """A TLS transport without the reference cycle of a failed connection.

    A client that closes without the closing alert, as most do, or fails the handshake, causes a Failure whose
    traceback refers to the frame that refers to the Failure, and to this transport with the buffers of OpenSSL.
    """

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        if reason is not None:
            reason.cleanFailure()
        super()._tlsShutdownFinished(reason)
