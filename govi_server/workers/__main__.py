"""A worker process: python -m govi_server.workers NUMBER [--tls], started by the main process alone."""

import sys
from importlib.util import find_spec
from typing import Any

# Packages that Twisted and asyncio import if they can, and that this process does not use: of 52 MB they need 5,
# OpenSSL 16 more. Without _hashlib, hashlib has its own functions, unless Python was built without them.
modules: dict[str, Any] = sys.modules
modules["ssl"] = None
if find_spec("_md5"):
    modules["_hashlib"] = None
if "--tls" not in sys.argv:
    modules["OpenSSL"] = None

from govi_server.workers.process import main  # noqa: E402

main()
