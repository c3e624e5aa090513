"""Passes callbacks on to the node that has sent the request: through the engine, or without it from node to node."""

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from govi_server.departures.board import Board
from govi_server.kv55.gateway import PEER_PATH, IPeers, IPoster, OfferResult
from govi_server.kv55.messages import write_dris_55
from govi_server.runtime.repeated_call import RepeatedCall
from govi_server.settings import parse_networks
from govi_server.sharing.boards import NODE_SECONDS, RENEW_SECONDS, SharedBoards
from govi_server.sharing.engine import EngineError, EngineUnavailable

REGISTER_SECONDS = 10.0
"""Time between two registrations of this node's address, and updates of those of the others."""

OFFER_SECONDS = 2.0
"""Time for which a board that no node is known to have requested is offered: if the engine has lost the claims, they
are renewed in a fraction of it."""

POST_TIMEOUT = 2.0
"""Seconds for a peer to respond."""

MAX_OFFERS = 100
"""Boards that are posted to the other nodes at a time; further ones are only offered to the engine."""

MAX_PEERS = 32
"""Nodes whose addresses are known."""

_ADDRESS = re.compile(r"(?:([0-9.]{7,15})|\[([0-9a-f:.]{2,45})\]):[1-9][0-9]{0,4}")


@implementer(IPeers)
class Peers(Service):
    """The other nodes of a module.

    Nodes register the addresses of their callback endpoints in the engine, and remember those of the others while it
    is unavailable. A callback is passed on only to addresses from which callbacks are allowed, so that an engine
    cannot direct it elsewhere. own_address: returns the IP address and port of this node's callback endpoint, or None
    if others cannot reach it. make_poster: makes the client of a URL. known: addresses of nodes besides those in the
    engine.
    """

    log = Logger()

    def __init__(
        self,
        boards: SharedBoards,
        clock: IReactorTime,
        own_address: Callable[[], tuple[str, int] | None],
        allow: Sequence[str],
        make_poster: Callable[[str], IPoster],
        known: Sequence[str] = (),
    ) -> None:
        self._boards = boards
        self._clock = clock
        self._own_address = own_address
        self.set_allow(allow)
        self._make_poster = make_poster
        self._known = known
        self._posters: dict[str, IPoster] = {}
        """The clients of the other nodes by their addresses."""
        self._missing_since: dict[str, float] = {}
        """Since when addresses of these are missing in the engine (epoch seconds)."""
        self._offers = 0
        """Boards that are being offered because the engine does not know that a node waits for them."""
        self._late_posts = 0
        """Late boards that are being posted; counted apart, so that they do not keep others from being offered."""
        self._registration = RepeatedCall("Registering this node", clock, REGISTER_SECONDS, self._register, now=False)
        boards.on_new_node(self._register)

    @property
    def urls(self) -> list[str]:
        """The URLs of the other nodes' callback endpoints."""
        return [f"http://{address}{PEER_PATH}" for address in self._posters]

    def startService(self) -> None:
        """Register this node, again and again."""
        super().startService()
        self._registered([])
        self._registration.startService()

    def stopService(self) -> Deferred[Any]:
        """Close the connections to the other nodes."""
        super().stopService()
        self._registration.stopService()
        return gatherResults([poster.close() for poster in self._posters.values()])

    def offer(self, board: Board) -> Deferred[OfferResult]:
        """Pass a board on to the node that has requested it. Never fails."""
        return Deferred.fromCoroutine(self._offer(board))

    async def _offer(self, board: Board) -> OfferResult:
        result = await self._boards.offer(board)
        if result == "late":
            posted = Deferred.fromCoroutine(self._post_late_board(board))  # which the callback does not wait for
            posted.addErrback(lambda failure: self.log.failure("Posting a late board failed", failure))
            return "stored"
        if result == "stored" or self._offers >= MAX_OFFERS:
            return result
        self._offers += 1
        try:
            if await self._post_to_peers(board):
                return "stored"  # the other node is not connected to the engine
            for _ in range(int(OFFER_SECONDS / RENEW_SECONDS)):
                if result != "unknown":
                    break
                await deferLater(self._clock, RENEW_SECONDS)
                result = await self._boards.offer(board)
            return "stored" if result == "late" else result
        finally:
            self._offers -= 1

    async def _post_late_board(self, board: Board) -> None:
        if self._late_posts < MAX_OFFERS:
            self._late_posts += 1
            try:
                await self._post_to_peers(board)
            finally:
                self._late_posts -= 1

    async def _post_to_peers(self, board: Board) -> bool:
        """Post a board to each peer; return whether one of them had requested it."""
        body = write_dris_55([board], None)
        posts: list[Deferred[Any]] = [
            poster.post(body).addTimeout(POST_TIMEOUT, self._clock).addCallbacks(lambda _: True, lambda _: False)
            for poster in self._posters.values()
        ]
        return any(await gatherResults(posts))

    def _register(self) -> None:
        registered = Deferred.fromCoroutine(self._boards.register(self._address()))
        registered.addCallbacks(self._registered, lambda failure: failure.trap(EngineUnavailable, EngineError))
        registered.addErrback(lambda failure: self.log.failure("Registering this node failed", failure))

    def _registered(self, addresses: list[str]) -> None:
        own, now = self._address(), self._clock.seconds()
        listed = {address for address in (*self._known, *addresses) if address != own and self._is_allowed(address)}
        for address in list(self._posters):
            if address in listed:
                self._missing_since.pop(address, None)
                continue
            # A node that is cut off from the engine is missing in one that has lost its data.
            since = self._missing_since.setdefault(address, now)
            if not 0 <= now - since < NODE_SECONDS or address == own or not self._is_allowed(address):
                self._posters.pop(address).close()
                del self._missing_since[address]
        for address in sorted(listed - self._posters.keys())[: MAX_PEERS - len(self._posters)]:
            self._posters[address] = self._make_poster(f"http://{address}{PEER_PATH}")

    def _address(self) -> str:
        """Return the address at which others reach this node; "" if they cannot."""
        address = self._own_address()
        if address is None:
            return ""
        host = self._boards.local_host if address[0] in ("0.0.0.0", "::") else address[0]
        return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"

    def set_allow(self, allow: Sequence[str]) -> None:
        """Set the networks that may send callbacks."""
        self._allow = parse_networks(allow)

    def _is_allowed(self, address: str) -> bool:
        """Return whether a text is an IP address with a port, from which callbacks are allowed."""
        match = _ADDRESS.fullmatch(address)
        try:
            ip = ip_address(match[1] or match[2]) if match else None
        except ValueError:
            return False
        return ip is not None and any(ip in network for network in self._allow)
