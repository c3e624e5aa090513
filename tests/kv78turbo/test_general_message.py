"""The size of general messages."""

import contextlib
from datetime import datetime

from twisted.trial.unittest import SynchronousTestCase

from govi_server.kv78turbo.general_message import GeneralMessage


class GeneralMessageTests(SynchronousTestCase):
    """General messages in memory."""

    def test_size_does_not_change(self) -> None:
        """A message is accounted for with the same bytes when it is removed as when it was stored."""
        for text in ("Stop Brug closed", "Halte Café vervalt", "停留所"):
            copy = "".join(text)
            message = GeneralMessage("RET_1", (("MessageContent", copy),), 0.0, None)
            size = message.size
            with contextlib.suppress(ValueError):
                datetime.fromisoformat(copy)  # such a function in C stores the UTF-8 of a text in the text
            self.assertEqual(message.size, size, text)
