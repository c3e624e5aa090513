"""A machine of the world that runs the program, started by its own makeService with a configuration file."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from govi_server import tap
from govi_server.http import event_listeners
from govi_server.runtime.program import IReloadable
from tests.simulation.reactor import SimulatedReactor

if TYPE_CHECKING:
    from tests.simulation.world import World

ARRIVAL_SECONDS = 0.7
"""Time in which all that was sent arrives."""

STOP_SECONDS = 30.0
"""Time in which a process must have stopped after SIGTERM: two drains, and a margin."""


class Node:
    """A machine with the program. epoch: the number of its process among all of the world."""

    def __init__(self, world: World, host: str, directory: Path) -> None:
        self.world = world
        self.host = host
        self.directory = directory
        self.epoch = 0
        self.reactor: SimulatedReactor | None = None
        self.service: Any = None
        self.offset = 0.0
        self.is_stopping = False
        self.stopping_at = 0.0
        self.is_renamed = False
        """Whether operators may use another name as well."""
        self.renamed_at = 0.0
        self.pause = 0.0
        self.started_at = 0.0
        self.statistics = directory / "statistics.jsonl"
        self.snapshot = directory / "snapshot"

    @property
    def is_up(self) -> bool:
        return self.service is not None and not self.is_stopping

    def wall_time(self) -> float:
        """Return what the machine's clock shows."""
        return self.world.scheduler.now + self.offset

    def set_clock(self, step: float) -> None:
        self.offset += step
        if self.reactor is not None:
            self.reactor.set_clock(step)

    def start(self) -> None:
        """Start a process, as twistd does."""
        world = self.world
        if self.service is not None or world.is_over:
            return
        self.epoch = world.next_epoch()
        self.is_stopping = False
        self.started_at = world.scheduler.now
        self.reactor = reactor = SimulatedReactor(
            world.scheduler,
            world.network,
            self.host,
            Random(f"{world.seed}/{self.host}/{self.epoch}"),
            world.zeromq.context,
        )
        reactor.offset = self.offset
        event_listeners._random = Random(f"{world.seed}/{self.epoch}/retry")
        reactor.on_process = world.processed
        os.environ["CACHE_DIRECTORY"] = str(self.directory / "cache")
        options = tap.Options()
        options.parseOptions(["--config", str(self.directory / "govi-cache.toml")])
        self.service = tap.makeService(options, reactor)
        self.service.privilegedStartService()
        self.service.startService()
        world.event("start", self.host)

    def reload(self) -> None:
        """Send SIGHUP."""
        self.world.event("SIGHUP", self.host)
        services = [self.service]
        while services:
            service = services.pop()
            if IReloadable.providedBy(service):
                service.reload()
            services.extend(getattr(service, "services", ()))

    def terminate(self, pause: float = 1.0) -> None:
        """Send SIGTERM: the services stop, and then the process ends. Another one starts after a pause."""
        self.pause = max(pause, 2 * ARRIVAL_SECONDS)
        self.is_stopping = True
        self.stopping_at = self.world.scheduler.now
        self.world.event("SIGTERM", self.host)
        epoch = self.epoch
        stopped = self.service.stopService()
        stopped.addBoth(lambda _: self._stopped(epoch))
        self.world.scheduler.after(STOP_SECONDS, self._check_stopped, epoch)

    def _stopped(self, epoch: int) -> None:
        if self.epoch == epoch and self.reactor is not None:
            reactor, self.reactor, self.service = self.reactor, None, None
            self.world.event("stopped", self.host)
            self.world.scheduler.after(0, reactor.crash)
            self.world.scheduler.after(ARRIVAL_SECONDS, self.world.stopped, self, self.world.disk.is_full)
            if not self.world.is_over:
                self.world.scheduler.after(self.pause, self.start)

    def _check_stopped(self, epoch: int) -> None:
        if self.epoch == epoch and self.service is not None:
            self.world.found("shutdown", f"the process has not ended {STOP_SECONDS:g} s after SIGTERM")

    def kill(self, pause: float = 1.0) -> None:
        """Send SIGKILL. Another process starts after a pause."""
        assert self.reactor is not None
        self.world.event("SIGKILL", self.host)
        reactor, self.reactor, self.service = self.reactor, None, None
        reactor.crash()
        self.world.killed(self)
        self.world.scheduler.after(pause, self.start)
