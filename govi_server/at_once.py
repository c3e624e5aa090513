"""Writing to a client at once."""

from twisted.internet.tcp import Connection

from govi_server.interfaces import IClientTransport


def write(sock: IClientTransport, data: bytes) -> None:
    """Write as transport.write() does, but now, if nothing is queued and the socket takes it.

    transport.write() always waits for the reactor to find that the socket can be written: for a short answer that
    costs more than the answer itself. Transports that are no sockets, TLS for example, write as they do.
    """
    # Twisted has no public way to ask whether anything is queued: dataBuffer is half of it.
    if isinstance(sock, Connection) and not (sock.dataBuffer or sock._tempDataBuffer):
        sent = sock.writeSomeData(data)
        if isinstance(sent, int):  # and otherwise the connection is lost, which write() makes the reactor find out
            if sent == len(data):
                return
            data = data[sent:]
    sock.write(data)
