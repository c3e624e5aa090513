"""Tests of the replay of recordings."""

import base64
import gzip
import tempfile
from datetime import date, timedelta
from pathlib import Path
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError
from govi_server.kv78turbo.recording import make_record, write_record
from govi_server.simulator.feed_faults import FaultInjector, FeedFaults
from govi_server.simulator.replay import Replay, shift_dates
from govi_server.simulator.town_feed import Message, general_message, timetable_messages
from tests.simulator.messages import FRIDAY, MESSAGES, TOWN, at, key, read


class ShiftTests(SynchronousTestCase):
    """Shifted dates."""

    def test_dates(self) -> None:
        """Dates and timestamps are shifted, with the UTC offset of their new date; nothing else changes."""
        data = (
            "\\GKV8turbo_passtimes|KV8turbo_passtimes|x|||UTF-8|0.1|2021-06-06T18:26:05+02:00|\ufeff\r\n"
            "\\LA|B|C|D|E\r\n"
            "X|2021-06-06|18:24:55|2021-06-06T00:10:00+02:00|op 2021-06-06 niet\r\n"
            "X|\\0|2021-06-0|2021-06-31|2021-06-06T18:26:05Z\r\n"
            "X|9999-12-31|2021-06-06T18:26:05|a|2021-12-31"
        )
        expected = (
            "\\GKV8turbo_passtimes|KV8turbo_passtimes|x|||UTF-8|0.1|2021-12-06T18:26:05+01:00|\ufeff\r\n"
            "\\LA|B|C|D|E\r\n"
            "X|2021-12-06|18:24:55|2021-12-06T00:10:00+01:00|op 2021-06-06 niet\r\n"
            "X|\\0|2021-06-0|2021-06-31|2021-12-06T20:26:05+01:00\r\n"
            "X|9999-12-31|2021-12-06T18:26:05|a|2022-07-02"
        )
        self.assertEqual(shift_dates(data.encode(), 183).decode(), expected)

    def test_no_shift(self) -> None:
        """A shift by zero days changes nothing."""
        self.assertEqual(shift_dates(MESSAGES[0].ctx, 0), MESSAGES[0].ctx)

    def test_there_and_back(self) -> None:
        """A shift and its reverse restore the message."""
        shifted = shift_dates(MESSAGES[0].ctx, 100)
        self.assertNotEqual(shifted, MESSAGES[0].ctx)
        self.assertEqual(shift_dates(shifted, -100), MESSAGES[0].ctx)


class ReplayTests(SynchronousTestCase):
    """Replayed recordings."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def save(self, name: str, data: bytes) -> None:
        (self.directory / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    def line(self, message: Message, time: float) -> bytes:
        return write_record(make_record(message.envelope, gzip.compress(message.ctx), time))

    def replay(self, today: date, speed: float = 1) -> Replay:
        return Replay(self.directory, today, speed)

    def test_ctx_files(self) -> None:
        """CTX files are sent one per second, with the envelope of their group; unreadable ones are skipped."""
        calendar, planning, *_ = timetable_messages(TOWN, at(FRIDAY, 12))
        general, passtimes = general_message(at(FRIDAY, 12)), MESSAGES[-1]
        self.save("1.ctx", general.ctx)
        self.save("2.ctx.gz", calendar.ctx)
        self.save("3.ctx.gz", planning.ctx)
        self.save("4.ctx", passtimes.ctx)
        self.save("5.ctx", b"nonsense")
        (self.directory / "6.ctx.gz").write_bytes(gzip.compress(passtimes.ctx)[:100])
        self.save("7.txt", passtimes.ctx)
        replay = self.replay(FRIDAY, speed=4)
        self.assertEqual(list(replay), [
            ([general], 0.25), ([calendar], 0.25), ([planning], 0.25), ([passtimes], 0.0)
        ])  # fmt: skip
        self.assertEqual(
            str(replay), f"4 messages in 4 files of {self.directory}, with 2026-05-08 as today (dates +0 days)"
        )

    def test_single_file(self) -> None:
        """A single recording is replayed, and not the others in its directory."""
        message = MESSAGES[-1]
        self.save("1.ctx", message.ctx)
        self.save("2.ctx.gz", message.ctx)
        replay = Replay(self.directory / "2.ctx.gz", FRIDAY, 1)
        self.assertEqual(list(replay), [([message], 0.0)])
        self.assertIn(f"1 message in 1 file of {self.directory}/2.ctx.gz", str(replay))

    def test_pace(self) -> None:
        """Recordings with times are sent at their original pace; a clock that was set back causes no pause."""
        message, now = MESSAGES[-1], at(FRIDAY, 12)
        lines = [self.line(message, now + seconds) for seconds in (0, 0.5, 30.5, 20)]
        self.save("1.jsonl", b"".join([*lines[:2], b"{}\n", b"nonsense\n", *lines[2:]]))
        self.save("2.jsonl.gz", self.line(message, now + 1e6))
        pauses = [pause for _, pause in self.replay(FRIDAY, speed=10)]
        self.assertEqual(pauses, [0.05, 3.0, 0.0, 0.1, 0.0])

    def test_invalid_message_is_replayed(self) -> None:
        """A message that is not CTX is sent as it was recorded."""
        self.save("1.jsonl", write_record(make_record("/GOVI/x", b"\x1f\x8bnonsense", 0)))
        ((messages, _),) = self.replay(FRIDAY)
        ((envelope, data),) = FaultInjector(FeedFaults(garbage=1), Random(1)).frames(messages[0])
        self.assertEqual((envelope, data), (b"/GOVI/x", b"\x1f\x8bnonsense"))
        line = b'{"time":"2026-05-08T10:00:00.000Z","envelope":"x","base64":"%b"}\n'
        self.save("1.jsonl", line % b"!" + line % base64.b64encode(b"y"))
        ((messages, _),) = self.replay(FRIDAY)
        self.assertEqual(messages, [Message("x", b"", b"y")])

    def test_date_of_kv8(self) -> None:
        """The day on which the earliest KV8 was sent becomes today, even with a timetable."""
        self.save("1.ctx", general_message(at(FRIDAY, 12)).ctx)
        self.save("2.ctx", general_message(at(FRIDAY - timedelta(days=2), 23)).ctx)
        for number, message in enumerate(timetable_messages(TOWN, at(FRIDAY - timedelta(days=30), 12))):
            self.save(f"3-{number}.ctx", message.ctx)
        replay = self.replay(date(2026, 12, 1))
        self.assertEqual((replay.day, replay.days), (FRIDAY - timedelta(days=2), 209))
        (row,) = read([next(iter(replay))[0][0]])["GENERALMESSAGEUPDATE"]
        self.assertEqual(key(row, "MessageCodeDate", "MessageStartTime"), ("2026-12-03", "2026-12-03T12:00:00+01:00"))

    def test_date_of_kv7(self) -> None:
        """Without KV8, the day with the most planned passtimes becomes today, the first of several."""
        saturday = FRIDAY + timedelta(days=1)
        for number, message in enumerate(timetable_messages(TOWN, at(saturday + timedelta(days=1), 12))):
            self.save(f"{number}.ctx.gz", message.ctx)
        self.assertEqual(self.replay(FRIDAY).day, saturday + timedelta(days=2))  # a Monday

    def test_date_without_calendar(self) -> None:
        """With planning alone, the day on which it was sent becomes today."""
        self.save("1.ctx", list(timetable_messages(TOWN, at(FRIDAY, 12)))[1].ctx)
        self.assertEqual(self.replay(FRIDAY).day, FRIDAY)

    def test_nothing_to_replay(self) -> None:
        """A missing directory, or one without readable recordings, is an error."""
        self.assertRaises(StartupError, self.replay, FRIDAY)
        self.save("1.ctx", b"nonsense")
        self.assertRaises(StartupError, self.replay, FRIDAY)
        self.assertRaises(StartupError, Replay, self.directory / "none", FRIDAY, 1)
