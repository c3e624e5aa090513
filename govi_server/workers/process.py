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
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.stdio import StandardIO
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
)

from govi_server.errors import StartupError
from govi_server.http.caching.request_memo import RequestMemo
from govi_server.http.client_limits import ClientLimits
from govi_server.http.unfinished import UnfinishedRequests
from govi_server.request_handler import RequestHandler
from govi_server.runtime.clock import ClockWatch
from govi_server.runtime.garbage_collection import GarbageCollection
from govi_server.runtime.ordered_services import Drain, OrderedMultiService
from govi_server.runtime.printable_log import install
from govi_server.runtime.repeated_call import RepeatedCall
from govi_server.runtime.resident_memory import resident_bytes
from govi_server.runtime.turn_watch import TurnWatch
from govi_server.server import Server
from govi_server.sockets.accepting import fit_connections
from govi_server.sockets.ports import BACKLOG, PortService
from govi_server.sockets.proxy_protocol import ProxyEndpoint
from govi_server.sockets.systemd import AdoptedEndpoint
from govi_server.workers.messages import (
    REPORT_INTERVAL,
    Assignment,
    Endpoint,
    Figures,
)
from govi_server.workers.proxy import Proxy
from govi_server.workers.reporter import Reporter

MAX_PROCESS_BYTES = 55_000_000
"""The memory of a worker with few connections, whatever its clients request (docs/scaling.md)."""

CACHE_SHARE = 0.3
"""Share of the memory that the program leaves for what is stored; connections, and gaps between allocations, need the
rest."""

MIN_CACHE_BYTES = 1 << 20
"""What is stored at least, if the program needs more."""

log = Logger()


# The services of a worker.


def make_worker(reactor: Any, assignment: Assignment, reporter: Reporter) -> tuple[OrderedMultiService, Server]:
    """Return the services of an assignment, and the server of clients among them.

    They stop in reverse order: the ports, the server, then the reports.
    """
    connections = fit_connections(assignment.access.connections, len(assignment.endpoints))
    access = ClientLimits(reactor, msgspec.structs.replace(assignment.access, connections=connections))
    upstream = UNIXClientEndpoint(reactor, assignment.upstream)
    cache_bytes = max(int((MAX_PROCESS_BYTES - resident_bytes()) * CACHE_SHARE), MIN_CACHE_BYTES)
    proxy = Proxy(reactor, upstream, assignment.modules, assignment.limits.connection, cache_bytes * 2 // 3)
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
    server.request_memo = RequestMemo(cache_bytes // 3)
    # Starts when all ports accept: their service accepts in privilegedStartService().
    signs = RepeatedCall(
        "Reporting figures", reactor, REPORT_INTERVAL, lambda: reporter.send(current_figures(server))
    )
    services = OrderedMultiService()
    services.addService(Drain(reporter.close))
    services.addService(signs)
    clock_watch = ClockWatch(reactor)
    clock_watch.set_back.extend((access.clock_set_back, proxy.clock_set_back, server.request_memo.clear))
    services.addService(clock_watch)
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
        from govi_server.workers.tls import TLSEndpoint, certificate_options  # see __main__.py

        result = TLSEndpoint(result, certificate_options(endpoint.certificate))
    return ProxyEndpoint(reactor, result) if endpoint.expects_proxy_header else result


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
            services, server = worker
            server.access.change_limits(assignment.access)
            if any(endpoint.certificate for endpoint in assignment.endpoints):
                from govi_server.workers.tls import renew_certificates  # see __main__.py

                renew_certificates(services, assignment)
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
