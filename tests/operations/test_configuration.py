"""Tests of govi_server.operations.configuration."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.operations.configuration import changed_settings
from govi_server.settings_loader import load


class ConfigurationTests(SynchronousTestCase):
    """The configuration in force, as operators see it."""

    def test_changed_settings_without_passwords(self) -> None:
        """Only settings that differ from their defaults are listed, and no password."""
        self.assertEqual(changed_settings(load(None, {"modules.kv55.source": "demo"}))["modules.kv55.source"], "demo")
        options = {
            "modules.kv55.source": "govi",
            "share.url": "redis://user:secret@engine.example/0",
            "listen": ["tcp:8080", "unix:/run/govi"],
            "admin.listen": "tcp:8081:interface=127.0.0.1",
        }
        self.assertEqual(
            changed_settings(load(None, options)),
            {
                "listen": ["tcp:8080", "unix:/run/govi"],
                "modules.kv55.source": "govi",
                "share.url": "redis://user:***@engine.example/0",
            },
        )
