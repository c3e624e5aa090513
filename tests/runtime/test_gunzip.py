"""Untrusted gzip: bounded, complete, and with nothing after it."""

import gzip
import zlib

from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.gunzip import gunzip

PLAIN = b"what leaves from a stop\n" * 10
PACKED = gzip.compress(PLAIN, mtime=0)


class GunzipTests(SynchronousTestCase):
    """Contents and rejections."""

    def refused(self, data: bytes, limit: int = 1 << 20) -> str:
        with self.assertRaises(ValueError) as caught:
            gunzip(data, limit)
        self.assertIs(type(caught.exception), ValueError)
        return str(caught.exception)

    def test_whole(self) -> None:
        """A complete file is decompressed: empty, of one member, of several, and padded with zeros."""
        for data, plain in [
            (PACKED, PLAIN),
            (gzip.compress(b""), b""),
            (PACKED + gzip.compress(b"and") + gzip.compress(b""), PLAIN + b"and"),
            (PACKED + b"\0" * 100, PLAIN),
            (PACKED * 16, PLAIN * 16),
        ]:
            self.assertEqual(gunzip(data, 1 << 20), plain)

    def test_limit(self) -> None:
        """The limit applies to all members together, and may be reached."""
        size = len(PLAIN)
        for data, limit in [(PACKED, size), (PACKED * 2, 2 * size), (PACKED + gzip.compress(b""), size)]:
            self.assertEqual(len(gunzip(data, limit)), limit)
        for data, limit in [(PACKED, size - 1), (PACKED * 2, 2 * size - 1), (PACKED + gzip.compress(b"x"), size)]:
            self.assertEqual(self.refused(data, limit), f"more than {limit} bytes after gunzip")

    def test_bomb(self) -> None:
        """A bomb is decompressed only up to the limit."""
        bomb = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        data = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(64)) + bomb.flush()
        self.assertEqual(self.refused(data, 1000), "more than 1000 bytes after gunzip")

    def test_truncated(self) -> None:
        """A truncated file is rejected, however much is missing."""
        for end in range(len(PACKED)):
            self.assertEqual(self.refused(PACKED[:end]), "truncated gzip")
        self.assertEqual(self.refused(PACKED + PACKED[:-1]), "truncated gzip")

    def test_broken(self) -> None:
        """Data that is not gzip, or has a wrong checksum or length, is rejected."""
        for data in (PLAIN, zlib.compress(PLAIN), b"\x1f\x8b\x09" + PACKED[3:]):
            self.assertIn("broken gzip: ", self.refused(data))
        for at in range(len(PACKED) - 8, len(PACKED)):
            wrong = bytearray(PACKED)
            wrong[at] ^= 1
            self.assertIn("broken gzip: ", self.refused(bytes(wrong)))

    def test_flipped(self) -> None:
        """With any single bit flipped, the content is the right one, or the file is rejected."""
        refused = 0
        for at in range(len(PACKED) * 8):
            wrong = bytearray(PACKED)
            wrong[at // 8] ^= 1 << at % 8
            try:
                plain = gunzip(bytes(wrong), 1 << 20)
            except ValueError:
                refused += 1
            else:
                self.assertEqual(plain, PLAIN)
        self.assertGreater(refused, (len(PACKED) - 10) * 8)  # nothing but the head may say something else

    def test_behind(self) -> None:
        """Bytes after the end are rejected, and so are too many members."""
        for data in (PACKED + b"x", PACKED + b"\0\0x", PACKED + b"\0" + PACKED, PACKED * 17):
            self.assertEqual(self.refused(data), "bytes after the end of the gzip")
