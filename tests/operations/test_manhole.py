"""The manhole's keys."""

import os
import warnings
from tempfile import TemporaryDirectory

from twisted.conch.ssh.keys import Key
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError

with warnings.catch_warnings():  # conch imports spwd, which Python 3.13 has no more
    warnings.filterwarnings("ignore", "'spwd' is deprecated", DeprecationWarning)
    from govi_server.operations.manhole import KeysFile, host_key


class KeysTests(SynchronousTestCase):
    """The keys of clients, and the server's own."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "keys")

    def write(self, text: bytes, mode: int = 0o600) -> None:
        with open(self.path, "wb") as file:
            file.write(text)
        os.chmod(self.path, mode)

    def error(self) -> str:
        with self.assertRaises(StartupError) as caught:
            KeysFile(self.path).read()
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(list(KeysFile(self.path).getAuthorizedKeys(b"x")), [])
        return str(caught.exception)

    def test_wrong(self) -> None:
        """What is wrong with the file is said in one line, and nobody comes in by it."""
        key = host_key(self.path + ".host")
        public = key.public().toString("openssh")
        self.assertIn("No such file", self.error())
        self.write(b"# none\n\n")
        self.assertIn("there is no key in it", self.error())
        self.write(public, 0o606)
        self.assertIn("others may write it", self.error())
        for wrong in (b"nonsense", b'from="10.0.0.1" ' + public, b"-----BEGIN OPENSSH PRIVATE KEY-----"):
            self.write(b"# first\n" + wrong)
            self.assertIn("line 2 is no public key", self.error())
        self.write(b"# me\n" + public + b"\n")
        self.assertEqual(KeysFile(self.path).read(), [key.public()])

    def test_host_key(self) -> None:
        """It is made once, for nobody else to read, and refused when others may."""
        key = host_key(self.path)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.assertEqual(host_key(self.path), key)
        self.assertIsInstance(key, Key)
        os.chmod(self.path, 0o644)
        with self.assertRaises(StartupError) as caught:
            host_key(self.path)
        self.assertIn("others may read it", str(caught.exception))
