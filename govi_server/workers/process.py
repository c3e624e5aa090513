"""A worker process: serves the clients of its listening sockets with the responses of the main process.

It drains and ends when the main process closes its standard input, and is killed when the main process ends. It has
no files: log lines and statistics go to the main process, which writes all of them.
"""

import ctypes
import gc
import os
import signal
import sys
import time
from socket import SO_ACCEPTCONN, SOL_SOCKET, socket
from typing import Any, cast

import msgspec
from OpenSSL import SSL
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.ssl import Certificate as X509
from twisted.internet.ssl import CertificateOptions, DiffieHellmanParameters, PrivateCertificate
from twisted.internet.stdio import StandardIO
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.filepath import FilePath
from zope.interface import implementer

from govi_server.errors import StartupError
from govi_server.http.caching.request_memo import RequestMemo
from govi_server.http.client_limits import ClientLimits
from govi_server.http.unfinished import UnfinishedRequests
from govi_server.request_handler import RequestHandler
from govi_server.runtime.clock import ClockWatch
from govi_server.runtime.garbage_collection import GarbageCollection
from govi_server.runtime.ordered_services import Drain, OrderedMultiService
from govi_server.runtime.printable_log import install
from govi_server.runtime.resident_memory import resident_bytes
from govi_server.runtime.turn_watch import TurnWatch
from govi_server.server import Server
from govi_server.sockets.accepting import fit_connections
from govi_server.sockets.endpoints import AdoptedEndpoint, ProxyEndpoint
from govi_server.sockets.listener import BACKLOG, PortService
from govi_server.workers.messages import (
    REPORT_INTERVAL,
    Assignment,
    Certificate,
    Endpoint,
    Figures,
)
from govi_server.workers.proxy import Proxy
from govi_server.workers.reporter import Reporter

MEMO_BYTES = 2 << 20
"""The memory of the parsed header sections: a worker needs little more than its program."""

log = Logger()


# The services of a worker.


def make_worker(reactor: Any, assignment: Assignment, reporter: Reporter) -> tuple[OrderedMultiService, Server]:
    """Return the services of an assignment, and the server of clients among them.

    They stop in reverse order: the ports, the server, then the reports.
    """
    connections = fit_connections(assignment.access.connections, len(assignment.endpoints))
    access = ClientLimits(reactor, msgspec.structs.replace(assignment.access, connections=connections))
    upstream = UNIXClientEndpoint(reactor, assignment.upstream)
    proxy = Proxy(reactor, upstream, assignment.modules, assignment.limits.connection)
    server = Server(
        "",
        0,
        RequestHandler,
        clock=reactor,
        find_module=proxy.find_module,
        limits=assignment.limits,
        headers=assignment.headers,
        access=access,
        name=assignment.name,
        observer=cast(ILogObserver, reporter.statistics_event),
        unfinished=UnfinishedRequests(reactor, assignment.limits.unfinished, connections),
        errors=assignment.errors,
    )
    server.request_memo = RequestMemo(MEMO_BYTES)
    # Starts when all ports accept: their service accepts in privilegedStartService().
    signs = TimerService(REPORT_INTERVAL, lambda: reporter.send(current_figures(server)))
    signs.clock = reactor
    services = OrderedMultiService()
    services.addService(Drain(reporter.close))
    services.addService(signs)
    services.addService(ClockWatch(reactor))
    services.addService(TurnWatch(reactor))
    services.addService(GarbageCollection(reactor))
    services.addService(Drain(server.drain))
    for endpoint in assignment.endpoints:
        services.addService(PortService(reactor, server_endpoint(reactor, endpoint), server))
    return services, server


def current_figures(server: Server) -> Figures:
    """Return the current figures of this process."""
    return Figures(server.figures(), time.process_time(), resident_bytes())


def server_endpoint(reactor: Any, endpoint: Endpoint) -> IStreamServerEndpoint:
    """Return the endpoint that accepts from a socket of the main process, whose descriptor is closed."""
    with socket(fileno=os.dup(endpoint.fd)) as listening:
        if not listening.getsockopt(SOL_SOCKET, SO_ACCEPTCONN):  # see SharedEndpoint.stop_listening()
            listening.listen(BACKLOG)
    result: IStreamServerEndpoint = AdoptedEndpoint(reactor, endpoint.fd)
    os.close(endpoint.fd)  # or connections would wait at a port that has stopped
    if endpoint.certificate is not None:
        result = TLSEndpoint(result, certificate_options(endpoint.certificate))
    return ProxyEndpoint(reactor, result) if endpoint.expects_proxy_header else result


@implementer(IStreamServerEndpoint, IOpenSSLServerConnectionCreator)
class TLSEndpoint:
    """Listens on another endpoint for connections with TLS, as an ssl endpoint does.

    options: those of new connections, which may be replaced.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, options: CertificateOptions) -> None:
        self.endpoint = endpoint
        self.options = options

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return the OpenSSL connection of a new client."""
        return self.options.serverConnectionForTLS(protocol)

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen on the other endpoint."""
        return self.endpoint.listen(TLSMemoryBIOFactory(self, False, protocolFactory))


def apply_assignment(services: OrderedMultiService, server: Server, assignment: Assignment) -> None:
    """Use the certificates of a changed assignment for new connections, and its limits of clients."""
    server.access.change_limits(assignment.access)
    ports = [service for service in services if isinstance(service, PortService)]
    for port, assigned in zip(ports, assignment.endpoints, strict=True):
        endpoint = port.endpoint.endpoint if isinstance(port.endpoint, ProxyEndpoint) else port.endpoint
        if isinstance(endpoint, TLSEndpoint) and assigned.certificate is not None:
            endpoint.options = certificate_options(assigned.certificate)


def certificate_options(certificate: Certificate) -> CertificateOptions:
    """Return the options of an ssl endpoint's certificate, as Twisted makes them of its text."""
    path = certificate.dh_parameters
    loaded = PrivateCertificate.loadPEM(certificate.certificate + certificate.key)
    return CertificateOptions(
        privateKey=loaded.privateKey.original,
        certificate=loaded.original,
        extraCertChain=[X509.loadPEM(pem).original for pem in certificate.chain],
        dhParameters=DiffieHellmanParameters.fromFile(FilePath(path)) if path else None,
        **({"method": getattr(SSL, certificate.method)} if certificate.method else {}),
    )


# The process.


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent, the main process, ends (PR_SET_PDEATHSIG of Linux).

    A hung worker would not notice that its pipe is closed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # If the parent has ended before that, standard input is at its end.


def main() -> None:
    """Run the worker of the process that started this one."""
    end_with_parent()
    # A terminal and a service manager send signals to all processes. The main process lets its workers drain.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    output = os.dup(1)
    os.dup2(2, 1)  # whatever prints must not write into the reports
    from twisted.internet import reactor

    clock: Any = reactor

    worker: tuple[OrderedMultiService, Server] | None = None

    def assigned(assignment: Assignment) -> None:
        nonlocal worker
        if worker is not None:
            apply_assignment(*worker, assignment)
            return
        try:
            services, _ = worker = make_worker(clock, assignment, reporter)
            services.privilegedStartService()
            services.startService()
        except Exception as error:
            if isinstance(error, StartupError):
                log.critical("{error}", error=error)
            else:
                log.failure("cannot start")
            reporter.close().addCallback(lambda _: os._exit(1))
            return
        clock.addSystemEventTrigger("before", "shutdown", services.stopService)
        gc.collect()
        gc.freeze()

    reporter = Reporter(clock, assigned, clock.stop, lambda: os._exit(1))
    install()
    levels = LogLevelFilterPredicate(LogLevel.warn)  # of Twisted, whose lines on ports the main process has as well
    levels.setLogLevelForNamespace("govi_server", LogLevel.info)
    observer = FilteringLogObserver(cast(ILogObserver, reporter.log_event), [levels])
    reporter.connect(cast(Any, StandardIO)(reporter.receiver, stdout=output, reactor=clock))
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    clock.run(installSignalHandlers=False)
