"""The boards and gateway requests of one module in the engine.

| key | value | expires |
|---|---|---|
| ``<prefix>:<module>:b:<code>`` | a board: ``1``, a line feed, and its DRIS_55 document | 300 s after it was made |
| ``<prefix>:<module>:f:<code>`` | the node that requests it, or how that ended (``+``, ``-silent``) | after 300 s |
| ``<prefix>:<module>:nodes`` | a sorted set of the addresses of nodes | after 60 s |

Ages follow from the time that is left to a key, so the clocks of nodes and engine may differ. A claim lasts for
LEASE_SECONDS and is renewed meanwhile; if the engine loses it, or a node is suspended for longer, a second node sends
a request. The channel ``<prefix>:<database>:<module>`` has the code of each stop whose request has ended while other
nodes waited (``!`` after the node): with N nodes, a message for each request would be work for all of them. Channels,
unlike keys, are common to all databases of an engine.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from govi_server.departures.board import Board
from govi_server.departures.timing_point import MAX_TIMING_POINT_CODE, is_timing_point_code
from govi_server.kv55.gateway import OfferResult
from govi_server.kv55.messages import MAX_DOCUMENT_BYTES, read_dris_55, write_dris_55
from govi_server.kv55.parsing import BadMessage
from govi_server.sharing.engine import Engine, EngineError, EngineUnavailable, Script

BOARD_SECONDS = 300
"""Time for which the engine keeps a board, and how a request ended: late callbacks are matched with it."""

RENEW_SECONDS = 0.5
"""Time between two claims of a node that waits for a board, which renew its claim or take over another node's."""

LEASE_SECONDS = 2.0
"""Time without renewal after which a node's claim may be taken over."""

NODE_SECONDS = 60
"""Time after which the engine forgets a node that does not register its address again. The other nodes forget it when
it has been missing there for as long."""

FORM = b"1\n"
"""The beginning of a board's value. Versions of the program with other forms ignore each other's boards."""

Outcome = Literal["silent", "broken", "unreachable"]
"""How a gateway request failed."""

_NEW_NODE = b"nodes"
_MILLISECONDS = 1000
_LIFETIME = BOARD_SECONDS * _MILLISECONDS
_LEAST_LEFT_TO_CLAIM = _LIFETIME - int(LEASE_SECONDS * _MILLISECONDS)

_FINISH = """
local function finish(request)
  local left, ttl = redis.call('PTTL', KEYS[1]), tonumber(ARGV[2])
  if left < ttl or left > tonumber(ARGV[3]) then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ttl)
  end
  redis.call('SET', KEYS[2], '+', 'PX', ARGV[3])
  if request ~= ARGV[6] then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
end
"""

# Returns a board that is recent enough, or how the request of another node goes; otherwise claims the request.
# KEYS: board, request. ARGV: node, least time left to the board, lifetime, maximum bytes of a board, least time left
# to a claim, whether the node has waited for another one.
_CLAIM = Script("""
local left = redis.call('PTTL', KEYS[1])
if left >= tonumber(ARGV[2]) and left <= tonumber(ARGV[3]) then
  local size = redis.pcall('STRLEN', KEYS[1])
  if type(size) == 'number' and size <= tonumber(ARGV[4]) then
    return {'board', redis.call('GET', KEYS[1]), left}
  end
end
local request = redis.pcall('GET', KEYS[2])
local waited_for = ARGV[1] .. '!'
if type(request) == 'string' and request ~= ARGV[1] and request ~= waited_for then
  local first = string.sub(request, 1, 1)
  if first ~= '+' and first ~= '-' then
    local claimed = redis.call('PTTL', KEYS[2])
    if claimed >= tonumber(ARGV[5]) and claimed <= tonumber(ARGV[3]) then
      if string.sub(request, -1) ~= '!' then redis.call('SET', KEYS[2], request .. '!', 'KEEPTTL') end
      return {'wait'}
    end
  elseif ARGV[6] == '1' and (request == '-silent' or request == '-broken') then
    return {string.sub(request, 2)}
  end
end
redis.call('SET', KEYS[2], request == waited_for and request or ARGV[1], 'PX', ARGV[3])
return {'claimed'}
""")

# Stores a board, unless the engine has a newer one, and wakes up the nodes that wait for it.
# KEYS: board, request. ARGV: value, time left to it, lifetime, channel, code, node.
_STORE = Script(_FINISH + "finish(redis.pcall('GET', KEYS[2])) return 1")

# Stores a board if a node has requested it. KEYS and ARGV: as for storing, and the least time left to a claim.
_OFFER = Script(
    _FINISH
    + """
local request = redis.pcall('GET', KEYS[2])
if type(request) ~= 'string' then return 'unknown' end
if request == '+' then return 'repeated' end
local claimed = string.sub(request, 1, 1) ~= '-' and redis.call('PTTL', KEYS[2]) or -1
finish(request)
return claimed >= tonumber(ARGV[7]) and claimed <= tonumber(ARGV[3]) and 'stored' or 'late'
"""
)

# Ends a claim. KEYS: request. ARGV: node, outcome, lifetime, channel, code.
_RELEASE = Script("""
local request = redis.pcall('GET', KEYS[1])
if request == ARGV[1] or request == ARGV[1] .. '!' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  if request ~= ARGV[1] then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
end
return 1
""")


# Registers a node's address, if it has one; returns those of all nodes. A value of another program is overwritten.
# KEYS: nodes. ARGV: address, lifetime in seconds, channel, the message about a new node.
_REGISTER = Script("""
local now = tonumber(redis.call('TIME')[1])
if redis.pcall('ZREVRANGE', KEYS[1], 0, 0).err then redis.call('EXPIRE', KEYS[1], 0) end
if ARGV[1] ~= '' then
  local is_new = redis.call('ZADD', KEYS[1], now, ARGV[1])
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  if is_new == 1 then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
return redis.call('ZREVRANGE', KEYS[1], 0, 99)
""")


class Claim(NamedTuple):
    """The result of a claim: a board, which node requests it ("claimed": this one, "wait": another one), or how the
    request of another one failed.
    """

    state: Literal["board", "claimed", "wait", "silent", "broken", "unreadable"]
    board: Board | None = None


class SharedBoards:
    """Stores boards and claims in the engine. node: the name of this process in claims, different from all others."""

    def __init__(
        self, engine: Engine, module: str, prefix: str, clock: IReactorTime, node: str | None = None
    ) -> None:
        self._engine = engine
        self.module = module
        self.status = engine.status
        self._node = node or uuid4().hex
        self._clock = clock
        self._keys = f"{prefix}:{module}"
        self._channel = f"{prefix}:{engine.database}:{module}"
        self._on_end: Callable[[str], object] = lambda code: None
        self._on_new_node: Callable[[], object] = lambda: None
        engine.listen(self._channel, self._on_message)

    def listen(self, on_end: Callable[[str], object]) -> None:
        """Call a function with the code of each stop whose request has ended on any node."""
        self._on_end = on_end

    def on_new_node(self, function: Callable[[], object]) -> None:
        """Call a function whenever the engine is connected, or another node registers for the first time."""
        self._on_new_node = function
        self._engine.on_connected(function)

    def _on_message(self, message: bytes) -> None:
        if message == _NEW_NODE:
            self._on_new_node()
        elif len(message) <= MAX_TIMING_POINT_CODE and is_timing_point_code(code := message.decode("latin-1")):
            self._on_end(code)

    @property
    def local_host(self) -> str:
        """The IP address of this machine from which it is connected to the engine."""
        return self._engine.local_host

    def claim(self, code: str, max_age: float, has_waited: bool) -> Deferred[Claim]:
        """Look for a board of at most this age in seconds, or claim the request for it.

        has_waited: whether the node waits for another one's request, whose failure is then returned. Fails with
        EngineUnavailable or EngineError.
        """
        least_left = _LIFETIME - int(min(max_age, BOARD_SECONDS) * _MILLISECONDS)
        max_bytes = MAX_DOCUMENT_BYTES + len(FORM)
        arguments = (self._node, least_left, _LIFETIME, max_bytes, _LEAST_LEFT_TO_CLAIM, int(has_waited))
        return self._engine.run(_CLAIM, self._names(code), *arguments).addCallback(self._claimed, code)

    def store(self, board: Board) -> None:
        """Store a board, and end the claim of its stop."""
        if (left := self._left(board)) > 0:
            arguments = (self._value(board), left, _LIFETIME, self._channel, board.code, self._node)
            self._engine.run(_STORE, self._names(board.code), *arguments).addCallbacks(self._written, _ignored)

    def release(self, code: str, outcome: Outcome) -> None:
        """End the claim of a stop without a board."""
        arguments = (self._node, f"-{outcome}", _LIFETIME, self._channel, code)
        self._engine.run(_RELEASE, self._names(code)[1:], *arguments).addErrback(_ignored)

    async def offer(self, board: Board) -> OfferResult | Literal["late"]:
        """Store a board if another node has requested it. Never fails.

        Returns "late" for a board that was stored although its request has failed, or its claim is no longer renewed:
        the node may be cut off from the engine, and still wait for it.
        """
        value, left = self._value(board), self._left(board)
        arguments = (value, left, _LIFETIME, self._channel, board.code, "", _LEAST_LEFT_TO_CLAIM)
        try:
            result = await self._engine.run(_OFFER, self._names(board.code), *arguments)
        except (EngineUnavailable, EngineError):
            return "unknown"
        return cast(Any, result.decode()) if result in (b"stored", b"late", b"repeated") else "unknown"

    async def register(self, address: str) -> list[str]:
        """Register this node's address; return those of all nodes. Raises EngineUnavailable or EngineError."""
        arguments = (address, NODE_SECONDS, self._channel, _NEW_NODE)
        addresses = await self._engine.run(_REGISTER, (f"{self._keys}:nodes",), *arguments)
        if not isinstance(addresses, list):
            return []
        if address:
            self.status.recovered()  # the engine accepts writes
        return [address.decode("latin-1") for address in addresses if isinstance(address, bytes)]

    def _names(self, code: str) -> tuple[str, str]:
        return f"{self._keys}:b:{code}", f"{self._keys}:f:{code}"

    def _left(self, board: Board) -> int:
        """Return the milliseconds for which a board is to be kept."""
        return min(_LIFETIME - int((self._clock.seconds() - board.received_at) * _MILLISECONDS), _LIFETIME)

    def _value(self, board: Board) -> bytes:
        return FORM + write_dris_55([board], None)

    def _written(self, _: object) -> None:
        self.status.recovered()

    def _claimed(self, reply: Any, code: str) -> Claim:
        """Check the reply to a claim."""
        match reply:
            case [b"board", bytes(value), int(left)] if 0 <= left <= _LIFETIME:
                try:
                    return Claim("board", self._board(code, value, left))
                except BadMessage as error:
                    self.status.unreadable(code, str(error))
                    return Claim("unreadable")
            case [b"claimed"]:
                self.status.recovered()
                return Claim("claimed")
            case [b"wait" | b"silent" | b"broken" as state]:
                return Claim(cast(Any, state.decode()))
            case _:
                self.status.unreadable(code, "invalid reply of a script")
                return Claim("unreadable")

    def _board(self, code: str, value: bytes, left: int) -> Board:
        """Parse a board, with the limits for those of a gateway. Raises BadMessage."""
        if not value.startswith(FORM):
            raise BadMessage("written by another version or program")
        received_at = self._clock.seconds() - (_LIFETIME - left) / _MILLISECONDS
        boards = read_dris_55(value.removeprefix(FORM), received_at)
        if len(boards) != 1 or boards[0].code != code:
            raise BadMessage("a board of another stop")
        return boards[0]


def _ignored(failure: Failure) -> None:
    """Do nothing: the board was served, and the engine's failure is logged."""
    failure.trap(EngineUnavailable, EngineError)
