"""A reactor in virtual time, of one program: what govi_server uses of Twisted's reactors, and no more."""

import select
import subprocess
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.error import AlreadyCalled, AlreadyCancelled, ConnectionDone, ProcessDone, ProcessTerminated
from twisted.internet.interfaces import (
    IDelayedCall,
    IHostnameResolver,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.simulation.network import Epoll, ListeningSocket, Network
from tests.simulation.scheduler import Event, Scheduler

_IN, _OUT, _BROKEN = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR | select.EPOLLHUP
_log = Logger()


@implementer(IDelayedCall)
class DelayedCall:
    """A delayed call, due by the wall clock of its reactor, which can be set."""

    __slots__ = ("_event", "_reactor", "_time", "arguments", "cancelled", "function", "keywords")

    def __init__(
        self, reactor: "SimulatedReactor", time: float, function: Any, arguments: Any, keywords: Any
    ) -> None:
        self._reactor = reactor
        self._time = time
        self.function = function
        self.arguments = arguments
        self.keywords = keywords
        self.cancelled = False
        self._event: Event | None = None
        self.schedule()

    def schedule(self) -> None:
        """Schedule the call for the time at which the wall clock will show its time."""
        if self._event is not None:
            self._event.cancel()
        reactor = self._reactor
        self._event = reactor.scheduler.at(self._time - reactor.offset, self._call)

    def _call(self) -> None:
        reactor = self._reactor
        if reactor.held_until > reactor.scheduler.now:
            self._event = reactor.scheduler.at(reactor.held_until, self._call)
            return
        self._event = None
        del reactor.calls[self]
        try:
            self.function(*self.arguments, **self.keywords)
        except Exception:  # as ReactorBase.runUntilCurrent()
            _log.failure("Unhandled error in a delayed call: {function!r}", function=self.function)

    def getTime(self) -> float:
        return self._time

    def active(self) -> bool:
        return self._event is not None

    def _check(self) -> None:
        if self.cancelled:
            raise AlreadyCancelled
        if self._event is None:
            raise AlreadyCalled

    def cancel(self) -> None:
        self._check()
        assert self._event is not None
        self._event.cancel()
        self._event = None
        self.cancelled = True
        del self._reactor.calls[self]
        self.function = self.arguments = self.keywords = None

    def delay(self, secondsLater: float) -> None:
        self._check()
        self._time += secondsLater
        self.schedule()

    def reset(self, secondsFromNow: float) -> None:
        self._check()
        self._time = self._reactor.seconds() + secondsFromNow
        self.schedule()


class _Port(tcp.Port):
    """Twisted's listening port, over a simulated socket."""

    reactor: Any

    def createInternetSocket(self) -> Any:
        return ListeningSocket(self.reactor.network, self.reactor.host)


class _Client(tcp.Client):
    """Twisted's client transport, over a simulated socket."""

    reactor: Any

    def createInternetSocket(self) -> Any:
        return self.reactor.network.socket(self.reactor.host)


class _Connector(tcp.Connector):
    def _makeTransport(self) -> Any:
        client = _Client.__new__(_Client)
        client.reactor = self.reactor  # its constructor creates the socket before it sets this
        client.__init__(self.host, self.port, self.bindAddress, self, self.reactor)  # type: ignore[misc]
        return client


class _ThreadPool:
    """Runs functions at a later moment, one after the other."""

    def __init__(self, reactor: "SimulatedReactor") -> None:
        self._reactor = reactor

    def callInThreadWithCallback(self, on_result: Any, function: Any, *arguments: Any, **keywords: Any) -> None:
        self._reactor.in_thread(self._run, on_result, function, arguments, keywords)

    def _run(self, on_result: Any, function: Any, arguments: Any, keywords: Any) -> None:
        try:
            result = function(*arguments, **keywords)
        except Exception:
            on_result(False, Failure())
        else:
            on_result(True, result)


class _Process:
    """A child process: it runs, as a real one, when it ends, and no time of this world passes meanwhile."""

    def __init__(self, reactor: "SimulatedReactor", protocol: Any, arguments: list[str], environment: Any) -> None:
        self.pid: int | None = 2
        self._reactor = reactor
        self._protocol = protocol
        self._arguments = arguments
        self._environment = environment
        protocol.makeConnection(self)
        reactor.scheduler.after(reactor.random.uniform(0.5, 20), reactor._unless_crashed, self._run, (), {})

    def _run(self) -> None:
        if self.pid is None:
            return
        result = subprocess.run(self._arguments, env=self._environment, capture_output=True)
        self._reactor.on_process(self._arguments, result.returncode)
        self._protocol.outReceived(result.stdout)
        self._protocol.errReceived(result.stderr)
        self._end(ProcessDone(0) if result.returncode == 0 else ProcessTerminated(result.returncode))

    def _end(self, reason: Exception) -> None:
        self.pid = None
        self._protocol.processEnded(Failure(reason))

    def closeStdin(self) -> None:
        pass

    def signalProcess(self, name: str) -> None:
        assert name == "KILL"
        self.pid = None
        reason = ProcessTerminated(signal=9)
        self._reactor.scheduler.after(0, self._reactor._unless_crashed, self._end, (reason,), {})


@implementer(IHostnameResolver)
class _Resolver:
    def __init__(self, reactor: "SimulatedReactor") -> None:
        self._reactor = reactor

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        receiver = resolutionReceiver
        receiver.resolutionBegan(None)
        host = self._reactor.host if hostName in ("127.0.0.1", "localhost") else hostName
        receiver.addressResolved(IPv4Address("TCP", host, portNumber))
        receiver.resolutionComplete()
        return receiver


class _Watch:
    """A descriptor that the reactor polls."""

    __slots__ = ("file", "mask", "pending", "selectable", "wake")

    def __init__(self, file: Any, selectable: Any, wake: Callable[[], object]) -> None:
        self.file = file
        self.selectable = selectable
        self.wake = wake
        self.mask = 0
        self.pending: Event | None = None


@implementer(IReactorTime, IReactorTCP, IReactorThreads, IReactorPluggableNameResolver)
class SimulatedReactor:
    """The reactor of one program on one machine.

    host: the machine's address. offset: the difference between its wall clock and the steady time. Once it has
    crashed, nothing of it is called any more.
    """

    running = True

    def __init__(
        self, scheduler: Scheduler, network: Network, host: str, random: Random, make_zmq_context: Callable[[], Any]
    ) -> None:
        self.scheduler = scheduler
        self.network = network
        self.host = host
        self.offset = 0.0
        self.calls: dict[DelayedCall, None] = {}
        self.nameResolver = _Resolver(self)
        self.zmq_context = make_zmq_context
        self.random = random
        self.on_process: Callable[[list[str], int], object] = lambda arguments, status: None
        """Called when a child process has run."""
        self._pool = _ThreadPool(self)
        self.held_until = 0.0
        """When the current turn ends: its events wait meanwhile."""
        self._watches: dict[int, _Watch] = {}
        self.crashed = False

    # What govi_server.runtime.outside replaces.

    def monotonic(self) -> float:
        return self.scheduler.now

    def call_every(self, interval: float, call: Callable[[], object]) -> Callable[[], None]:
        stopped = False

        def stop() -> None:
            nonlocal stopped
            stopped = True

        def tick() -> None:
            if not stopped and not self.crashed:
                self.scheduler.after(interval, tick)
                call()

        self.scheduler.after(interval, tick)
        return stop

    def epoll(self) -> Epoll:
        return Epoll(self.network)

    def hold(self, seconds: float) -> None:
        """Let the current turn take so much longer."""
        self.held_until = max(self.held_until, self.scheduler.now) + seconds

    # IReactorTime

    def seconds(self) -> float:
        return self.scheduler.now + self.offset

    def callLater(self, delay: float, callable: Any, *args: Any, **kw: Any) -> DelayedCall:
        assert delay >= 0, f"{delay!r} is negative"
        call = DelayedCall(self, self.seconds() + delay, callable, args, kw)
        self.calls[call] = None
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        return list(self.calls)

    def set_clock(self, step: float) -> None:
        """Set the wall clock forward, or back."""
        self.offset += step
        for call in list(self.calls):
            call.schedule()

    def installNameResolver(self, resolver: Any) -> Any:
        previous, self.nameResolver = self.nameResolver, resolver
        return previous

    # IReactorThreads

    def getThreadPool(self) -> Any:
        return self._pool

    def callFromThread(self, callable: Any, *args: Any, **kw: Any) -> None:
        self.scheduler.after(0, self._call_from_thread, callable, args, kw)

    def callInThread(self, callable: Any, *args: Any, **kw: Any) -> None:
        self.in_thread(callable, *args, **kw)

    def in_thread(self, function: Any, *arguments: Any, **keywords: Any) -> None:
        """Call a function at a later moment, as a thread that the system schedules."""
        self.scheduler.after(0.05 * self.random.random(), self._unless_crashed, function, arguments, keywords)

    def _call_from_thread(self, function: Any, arguments: Any, keywords: Any) -> None:
        if self.held_until > self.scheduler.now:
            self.scheduler.at(self.held_until, self._call_from_thread, function, arguments, keywords)
        else:
            self._unless_crashed(function, arguments, keywords)

    def _unless_crashed(self, function: Any, arguments: Any, keywords: Any) -> None:
        if not self.crashed:
            function(*arguments, **keywords)

    def suggestThreadPoolSize(self, size: int) -> None:
        pass

    # IReactorProcess

    def spawnProcess(self, protocol: Any, executable: str, args: Any = (), env: Any = None, *more: Any) -> _Process:
        return _Process(self, protocol, list(args), env)

    # IReactorCore, of which the program uses addSystemEventTrigger through twistd only

    def addSystemEventTrigger(self, *args: Any, **kw: Any) -> None:
        pass

    def removeSystemEventTrigger(self, *args: Any) -> None:
        pass

    def callWhenRunning(self, callable: Any, *args: Any, **kw: Any) -> None:
        self.callLater(0, callable, *args, **kw)

    def stop(self) -> None:
        pass

    # IReactorTCP

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "", *args: Any) -> Any:
        listening = _Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None, *args: Any
    ) -> Any:
        connector = _Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    # IReactorFDSet

    def addReader(self, reader: Any) -> None:
        self._watch(reader, _IN, 0)

    def addWriter(self, writer: Any) -> None:
        self._watch(writer, _OUT, 0)

    def removeReader(self, reader: Any) -> None:
        self._watch(reader, 0, _IN)

    def removeWriter(self, writer: Any) -> None:
        self._watch(writer, 0, _OUT)

    def _watch(self, selectable: Any, added: int, removed: int) -> None:
        number = selectable.fileno()
        watch = self._watches.get(number)
        if watch is None:
            file = self.network.files.get(number)
            if not added or file is None:
                return
            watch = _Watch(file, selectable, lambda: self._wake(number))
            self._watches[number] = watch
            file.watchers.append(watch.wake)
        watch.mask = (watch.mask | added) & ~removed
        if watch.mask:
            self._wake(number)
        else:
            del self._watches[number]
            if watch.wake in watch.file.watchers:
                watch.file.watchers.remove(watch.wake)

    def _wake(self, number: int) -> None:
        watch = self._watches.get(number)
        if watch is not None and watch.pending is None and watch.file.events() & (watch.mask | _BROKEN):
            watch.pending = self.scheduler.after(0, self._serve, watch, number)

    def _serve(self, watch: _Watch, number: int) -> None:
        """Serve a ready descriptor, as twisted.internet.posixbase does."""
        if self.held_until > self.scheduler.now:
            watch.pending = self.scheduler.at(self.held_until, self._serve, watch, number)
            return
        watch.pending = None
        if self.crashed or self._watches.get(number) is not watch:
            return
        events, selectable = watch.file.events(), watch.selectable
        if not events & (watch.mask | _BROKEN):
            return
        reason: Any = None
        reading = False
        if events & _BROKEN and not events & _IN:
            reading = bool(watch.mask & _IN)
            reason = CONNECTION_DONE if reading else CONNECTION_LOST
        else:
            try:
                if events & _IN and watch.mask & _IN:
                    reading = True
                    reason = selectable.doRead()
                if not reason and events & _OUT and self._watches.get(number) is watch and watch.mask & _OUT:
                    reading = False
                    reason = selectable.doWrite()
            except Exception as error:
                _log.failure("Reading or writing failed: {selectable}", selectable=selectable)
                reason = error
        if reason:
            self._watch(selectable, 0, _IN | _OUT) if selectable.fileno() == number else None
            if reading and reason.__class__ is ConnectionDone and hasattr(selectable, "readConnectionLost"):
                selectable.readConnectionLost(Failure(reason))
            else:
                selectable.connectionLost(Failure(reason))
        self._wake(number)

    # The end of the process.

    def crash(self) -> None:
        """End the process without any farewell: its sockets are closed by the kernel."""
        self.crashed = True
        for call in list(self.calls):
            if call.active():
                call.cancel()
        self.network.close_machine(self.host)
