"""Tests of the components of the running program."""

from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from govi_server.operations.components import Components


class ComponentsTests(SynchronousTestCase):
    """What the components say together."""

    def test_unreachable_gateways(self) -> None:
        """A gateway is unreachable while its circuit breaker is not closed."""
        states = {"kv55": "closed", "second": "open", "third": "half-open"}
        components = Components(cast(Any, None))
        for name, state in states.items():
            components.gateways[name] = cast(Any, SimpleNamespace(breaker=SimpleNamespace(state=state)))
        self.assertEqual(components.unreachable(), ["second", "third"])
