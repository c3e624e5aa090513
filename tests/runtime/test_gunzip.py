"""Decompressing untrusted gzip: bounded, complete, and without bytes after the end."""

import gzip
import zlib

from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.gunzip import gunzip

PLAIN = b"departures of a stop\n" * 10
PACKED = gzip.compress(PLAIN, mtime=0)


class GunzipTests(SynchronousTestCase):
    """gunzip()."""

    def error(self, data: bytes, limit: int = 1 << 20) -> str:
        """Return the error of rejected data."""
        with self.assertRaises(ValueError) as caught:
            gunzip(data, limit)
        self.assertIs(type(caught.exception), ValueError)
        return str(caught.exception)

    def test_complete_file_is_decompressed(self) -> None:
        """A complete file is decompressed: with one or several members, empty, and padded with zeros."""
        for data, plain in [
            (PACKED, PLAIN),
            (gzip.compress(b""), b""),
            (PACKED + gzip.compress(b"and") + gzip.compress(b""), PLAIN + b"and"),
            (PACKED + b"\0" * 100, PLAIN),
            (PACKED * 16, PLAIN * 16),
        ]:
            self.assertEqual(gunzip(data, 1 << 20), plain)

    def test_limit_is_inclusive(self) -> None:
        """The limit is inclusive, and applies to all members together."""
        size = len(PLAIN)
        for data, limit in [(PACKED, size), (PACKED * 2, 2 * size), (PACKED + gzip.compress(b""), size)]:
            self.assertEqual(len(gunzip(data, limit)), limit)
        for data, limit in [(PACKED, size - 1), (PACKED * 2, 2 * size - 1), (PACKED + gzip.compress(b"x"), size)]:
            self.assertEqual(self.error(data, limit), f"more than {limit} bytes after gunzip")

    def test_bomb_is_rejected(self) -> None:
        """A decompression bomb is rejected at the limit."""
        bomb = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        data = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(64)) + bomb.flush()
        self.assertEqual(self.error(data, 1000), "more than 1000 bytes after gunzip")

    def test_truncated_file_is_rejected(self) -> None:
        """A file that is truncated at any byte is rejected."""
        for end in range(len(PACKED)):
            self.assertEqual(self.error(PACKED[:end]), "truncated gzip")
        self.assertEqual(self.error(PACKED + PACKED[:-1]), "truncated gzip")

    def test_broken_file_is_rejected(self) -> None:
        """Data that is not gzip, or has a wrong checksum or length, is rejected."""
        for data in (PLAIN, zlib.compress(PLAIN), b"\x1f\x8b\x09" + PACKED[3:]):
            self.assertIn("broken gzip: ", self.error(data))
        for at in range(len(PACKED) - 8, len(PACKED)):
            broken = bytearray(PACKED)
            broken[at] ^= 1
            self.assertIn("broken gzip: ", self.error(bytes(broken)))

    def test_flipped_bit_never_changes_the_content(self) -> None:
        """With any single bit flipped, the file is rejected, or its content is unchanged."""
        n_rejected = 0
        for at in range(len(PACKED) * 8):
            broken = bytearray(PACKED)
            broken[at // 8] ^= 1 << at % 8
            try:
                plain = gunzip(bytes(broken), 1 << 20)
            except ValueError:
                n_rejected += 1
            else:
                self.assertEqual(plain, PLAIN)
        self.assertGreater(n_rejected, (len(PACKED) - 10) * 8)  # only bits of the header may be irrelevant

    def test_bytes_after_the_end_are_rejected(self) -> None:
        """Bytes after the end are rejected, and so are too many members."""
        for data in (PACKED + b"x", PACKED + b"\0\0x", PACKED + b"\0" + PACKED, PACKED * 17):
            self.assertEqual(self.error(data), "bytes after the end of the gzip")
