"""POST to the callback endpoint, under any path: the gateway's answers, which come later and by themselves."""

from collections.abc import Callable, Sequence

from twisted.application.service import Service
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from govi_server.http.addresses import ip_of, truncated
from govi_server.http.request import Environ
from govi_server.kv55.gateway import Gateway, Unsolicited
from govi_server.kv55.messages import CONTENT_TYPE, BadMessage, write_dris_55_res
from govi_server.settings import Network
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler


@implementer(IWebModule)
class Callback(Service):
    """Hands callbacks to a gateway.

    allow: the networks that may send them; a peer without an address, on a unix socket, may. now: the moment, as
    epoch seconds.
    """

    def __init__(
        self,
        gateway: Gateway,
        allow: Sequence[Network],
        now: Callable[[], float],
        subscriber_id: str,
    ) -> None:
        self.gateway = gateway
        self.now = now
        self.subscriber_id = subscriber_id
        self._allow = allow

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "CallbackHandler":
        """Make the handler of one callback."""
        return CallbackHandler(self, request_handler, env)

    def allows(self, addr: IAddress) -> bool:
        """Tell whether an address may send callbacks."""
        address = ip_of(addr)
        return address is None or any(address in network for network in self._allow)


class CallbackHandler(WebHandler):
    """Answers one callback: with a DRIS_55_RES if a board in it was asked for."""

    methods = ("POST",)

    def __init__(self, module: Callback, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def post(self) -> None:
        """Take a callback, or refuse it: 403 for one that nobody asked for, 400 for one that cannot be read."""
        addr = self.request_handler.peer
        self.mark("lookup")
        if not self._module.allows(addr):
            self._module.gateway.refuse(truncated(ip_of(addr)))
            self.send_response("You may not send callbacks\n", "403 Forbidden")
            return
        try:
            self._module.gateway.deliver(self.env.body)
        except Unsolicited as error:
            self.send_response(f"{error}\n", "403 Forbidden")
        except BadMessage as error:
            self.send_response(f"{error}\n", "400 Bad Request")
        else:
            body = write_dris_55_res(self._module.now(), self._module.subscriber_id)
            self.mark("render")
            self.send_response(body, headers={"Content-Type": CONTENT_TYPE})
