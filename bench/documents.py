"""An ASGI application that serves documents from a dict, which it reads from the file that BENCH_DOCUMENTS names."""

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

_FILE = json.loads(Path(os.environ["BENCH_DOCUMENTS"]).read_text())
_TYPE: bytes = _FILE["type"].encode()
_BODIES: dict[bytes, bytes] = {target.encode(): body.encode() for target, body in _FILE["bodies"].items()}


async def app(scope: dict[str, Any], receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Respond with a document, or 404."""
    if scope["type"] != "http":
        return
    query = scope["query_string"]
    body = _BODIES.get(scope["raw_path"] + b"?" + query if query else scope["raw_path"])
    status = 404 if body is None else 200
    headers = [(b"content-type", _TYPE), (b"content-length", b"%d" % len(body or b""))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body or b""})
