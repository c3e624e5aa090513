"""The load balancer in front of the nodes: which of them a connection reaches."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

CHECKED = 0.95
"""The fraction of connections for which it has noticed that a node has stopped listening."""
STICKY = 0.4
"""The fraction of connections that reach the node of the one before."""


class Balancer:
    """Chooses nodes. Of each chance of choice it has a Random of its own for each kind of client."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._randoms: dict[str, Random] = {}

    def choose(self, client: str, port: int, previous: Node) -> Node:
        """Return the node for a client's next connection."""
        nodes = self._world.nodes
        if len(nodes) == 1:
            return nodes[0]
        random = self._randoms.get(client)
        if random is None:
            random = self._randoms[client] = Random(f"{self._world.seed}/balancer/{client}")
        listening = [node for node in nodes if (node.host, port) in self._world.network.listening]
        if not listening or random.random() >= CHECKED:
            return random.choice(nodes)
        return previous if previous in listening and random.random() < STICKY else random.choice(listening)
