"""POST to the callback endpoint, under any path: the gateway's asynchronous responses."""

from collections.abc import Callable, Sequence

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.http.addresses import Address, ip_of, truncated
from govi_server.http.hosts import MISDIRECTED, rejected_host, rejection
from govi_server.http.request import Environ
from govi_server.kv55.gateway import PEER_PATH, Delivery, Gateway, Unsolicited
from govi_server.kv55.messages import CONTENT_TYPE, write_dris_55_res
from govi_server.settings import parse_networks
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler


@implementer(IWebModule)
class Callback(Service):
    """Delivers callbacks to a gateway.

    allow: the networks that may send them, besides peers on a unix socket. now: returns the time in epoch seconds.
    hosts: names of the server in requests from loopback, besides its addresses and localhost.
    """

    def __init__(
        self,
        gateway: Gateway,
        allow: Sequence[str],
        now: Callable[[], float],
        subscriber_id: str,
        hosts: Sequence[str] = (),
    ) -> None:
        self.gateway = gateway
        self.now = now
        self.subscriber_id = subscriber_id
        self.set_allow(allow)
        self._hosts = hosts

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "CallbackHandler":
        """Return the handler of one callback."""
        return CallbackHandler(self, request_handler, env)

    def set_allow(self, allow: Sequence[str]) -> None:
        """Set the networks that may send callbacks."""
        self._allow = parse_networks(allow)

    def allows(self, address: Address | None) -> bool:
        """Return whether an address may send callbacks; None is a unix socket."""
        return address is None or any(address in network for network in self._allow)

    def rejected_host(self, address: Address | None, env: Environ) -> str | None:
        """Return the request's host if it may belong to another site; None if it does not.

        Only for a peer on loopback, which may be a browser. A gateway may use any name for this server.
        """
        if address is None or not address.is_loopback or "http_host" not in env:
            return None
        return rejected_host([env["http_host"]], self._hosts)


class CallbackHandler(WebHandler):
    """Acknowledges a callback with a DRIS_55_RES, then serves the requests that wait for its boards."""

    methods = ("POST",)

    def __init__(self, module: Callback, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module
        self._address = ip_of(request_handler.peer)
        self._is_allowed = module.allows(self._address)
        self._rejected_host = module.rejected_host(self._address, env)

    def reads_body(self) -> bool:
        """Return whether the client may send callbacks; otherwise its body is not received."""
        return self._is_allowed and self._rejected_host is None

    async def post(self) -> None:
        """Respond to a callback: 403 if no board in it was requested, 400 if it is unreadable."""
        self.mark("lookup")
        if not self._is_allowed:
            self._module.gateway.refuse(truncated(self._address), "the module's `allow`")
            self.send_response("Callbacks from this address are not allowed\n", "403 Forbidden")
            return
        host = self._rejected_host
        if host is not None:
            self._module.gateway.refuse(f"{truncated(self._address)} for host {host!r}", "admin.hosts")
            self.send_response(rejection(host), MISDIRECTED)
            return
        delivery = self._module.gateway.deliver(self.env.body, self.env["path_info"] == PEER_PATH)
        try:
            await self._acknowledge(delivery)
        finally:  # the requests are resolved, even if the gateway has closed its connection
            delivery.serve()

    async def _acknowledge(self, delivery: Delivery) -> None:
        """Offer the boards that other nodes may have requested, then respond to the callback."""
        if delivery.unmatched:
            await self._module.gateway.offer(delivery)
        if delivery.error is None:
            body = write_dris_55_res(self._module.now(), self._module.subscriber_id)
            self.mark("render")
            self.send_response(body, headers={"Content-Type": CONTENT_TYPE})
        else:
            status = "403 Forbidden" if isinstance(delivery.error, Unsolicited) else "400 Bad Request"
            self.send_response(f"{delivery.error}\n", status)
