"""Tests of the components of the running program."""

from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from govi_server.operations.components import Components


class ComponentsTests(SynchronousTestCase):
    """What the components say together."""

    def test_unreachable_gateways(self) -> None:
        """A gateway is unreachable while it did not accept the last request."""
        reachable = {"kv55": True, "second": False}
        components = Components(cast(Any, None))
        for name, is_reachable in reachable.items():
            components.gateways[name] = cast(Any, SimpleNamespace(breaker=SimpleNamespace(is_reachable=is_reachable)))
        self.assertEqual(components.unreachable(), ["second"])
