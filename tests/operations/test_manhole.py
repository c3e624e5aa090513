"""Tests of the keys of govi_server.operations.manhole."""

import os
import warnings
from tempfile import TemporaryDirectory

from twisted.conch.insults import insults
from twisted.conch.ssh.keys import Key
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError

with warnings.catch_warnings():  # conch imports spwd, which Python 3.13 does not have
    warnings.filterwarnings("ignore", "'spwd' is deprecated", DeprecationWarning)
    from govi_server.operations.manhole import KeysFile, Prompt, fingerprint, host_key


PUBLIC_KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMsKKHrr7u3FDTH6bP/aAByXiyG/BnUeno676k/QEyBG"


class PromptTests(SynchronousTestCase):
    """The terminal of a session."""

    def test_output_is_printable(self) -> None:
        """Values, printed texts and exceptions reach the terminal without control characters from outside."""
        text = "\x1b[2J\x9b\x7f\u202e\u2028"
        prompt = Prompt({"text": text}, "", "operator")
        transport = StringTransport()
        terminal = insults.ServerProtocol(lambda: prompt)
        terminal.makeConnection(transport)
        transport.clear()
        for line in (b"text", b"print(text)", b"raise ValueError(text)", b"1/0 if text else 1"):
            prompt.lineReceived(line)
        output = transport.value().decode()
        self.assertIn("ValueError", output)
        self.assertEqual({c for c in output if not c.isprintable()} - {"\r", "\n"}, set())


class KeysTests(SynchronousTestCase):
    """The keys of operators, and the host key."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "keys")

    def write(self, text: bytes, mode: int = 0o600) -> None:
        with open(self.path, "wb") as file:
            file.write(text)
        os.chmod(self.path, mode)

    def error(self) -> str:
        """Return the error of the file of keys, which must admit no key."""
        with self.assertRaises(StartupError) as caught:
            KeysFile(self.path).read()
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(list(KeysFile(self.path).getAuthorizedKeys(b"x")), [])
        return str(caught.exception)

    def test_invalid_keys_file(self) -> None:
        """The error of an invalid file is one line, and the file admits no key."""
        key = host_key(self.path + ".host")
        public = key.public().toString("openssh")
        self.assertIn("No such file", self.error())
        self.write(b"# none\n\n")
        self.assertIn("contains no keys", self.error())
        self.write(public, 0o606)
        self.assertIn("is writable by others", self.error())
        for invalid in (b"nonsense", b'from="10.0.0.1" ' + public, b"-----BEGIN OPENSSH PRIVATE KEY-----"):
            self.write(b"# first\n" + invalid)
            self.assertIn("line 2: not a public key", self.error())
        self.write(b"# operator\n" + public + b"\n")
        self.assertEqual(KeysFile(self.path).read(), [key.public()])

    def test_fingerprint(self) -> None:
        """A key has the fingerprint that ssh-keygen -l prints."""
        key = Key.fromString(PUBLIC_KEY)
        self.assertEqual(fingerprint(key), "SHA256:nu/6PdPv1gO6vVPiWhcPpB75Jouv5K0ZU5MGYHN5j3g")

    def test_host_key_is_private(self) -> None:
        """The host key is created once, readable by its owner alone, and rejected if others can read it."""
        key = host_key(self.path)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.assertEqual(host_key(self.path), key)
        self.assertIsInstance(key, Key)
        os.chmod(self.path, 0o644)
        with self.assertRaises(StartupError) as caught:
            host_key(self.path)
        self.assertIn("readable by others", str(caught.exception))
