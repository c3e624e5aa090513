"""Tests of the faults of the simulated feed."""

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from govi_server.kv78turbo import ctx
from govi_server.runtime.gunzip import gunzip
from govi_server.simulator.feed_faults import FaultInjector, FeedFaults
from govi_server.simulator.kv78_rows import COLUMNS, journeys_in_kv8, passtime_rows
from govi_server.simulator.town_feed import CYCLE_SECONDS
from tests.simulator.messages import DATED_KEY, FRIDAY, MESSAGES, TOWN, Row, TownMessages, at, key, payload, read


class FaultsTests(SynchronousTestCase):
    """Faults, alone and repeated."""

    def test_no_faults(self) -> None:
        """Without faults each message is sent once, in order, a large one in two frames."""
        injector = FaultInjector(FeedFaults(), Random(1))
        counts = set()
        for message in MESSAGES:
            (frames,) = injector.frames(message)
            counts.add(len(frames))
            self.assertEqual(frames[0].decode(), message.envelope)
            self.assertEqual(gunzip(payload(frames), 1 << 24), message.ctx)
        self.assertEqual(counts, {2, 3})
        self.assertEqual(injector.release(), [])

    def test_same_seed(self) -> None:
        """The same seed produces the same faults; another seed produces others."""
        faults = FeedFaults(garbage=0.3, duplicate=0.2, out_of_order=0.2)
        first, same, other = (
            [frames for message in MESSAGES for frames in injector.frames(message)]
            for injector in (FaultInjector(faults, Random(seed)) for seed in (1, 1, 2))
        )
        self.assertEqual(first, same)
        self.assertNotEqual(first, other)

    def test_garbage(self) -> None:
        """Some messages are replaced by corrupt ones of all kinds, whose rows are invalid or incomplete."""
        injector = FaultInjector(FeedFaults(garbage=0.5), Random(1))
        intact = 0
        errors: list[str] = []
        for message in MESSAGES:
            (frames,) = injector.frames(message)
            try:
                data = gunzip(payload(frames), 1 << 24)
            except ValueError as error:
                errors.append(str(error).partition(":")[0])
                continue
            if data == message.ctx:
                intact += 1
            elif b"99:99:99" in data:
                errors.append("time")
            else:
                rows = [line for records in ctx.read([data], errors.append) for line in records.lines]
                self.assertEqual([row for row in rows if not row.endswith(ctx.NULL)], [])
        self.assertTrue(0.4 < intact / len(MESSAGES) < 0.6)
        self.assertLessEqual({"broken gzip", "truncated gzip", "time", "columns", "encoding"}, set(errors))

    def test_garbage_is_repeated(self) -> None:
        """After a few cycles, nearly every row has been in an intact message."""
        town = TownMessages(at(FRIDAY, 21))
        injector = FaultInjector(FeedFaults(garbage=0.2), Random(1))
        known: dict[tuple[str | None, ...], Row] = {}
        for _ in range(3 * CYCLE_SECONDS):
            for message in town.next_second():
                (frames,) = injector.frames(message)
                intact = FaultInjector(FeedFaults(), Random(1)).frames(message)
                if "passtimes" in message.envelope and [frames] == intact:
                    for row in read([message])["DATEDPASSTIME"]:
                        known[key(row, *DATED_KEY)] = row
        rows = {
            key(dict(zip(COLUMNS["DATEDPASSTIME"], row, strict=True)), *DATED_KEY)
            for journey in journeys_in_kv8(TOWN, town.now)
            for row in passtime_rows(TOWN, journey, town.now)
        }
        self.assertLess(len(rows - set(known)), 0.05 * len(rows))  # the latest may be corrupt

    def test_duplicates(self) -> None:
        """Some messages are sent twice."""
        injector = FaultInjector(FeedFaults(duplicate=0.5), Random(1))
        counts = [len(injector.frames(message)) for message in MESSAGES]
        self.assertEqual(set(counts), {1, 2})
        self.assertTrue(0.4 < counts.count(2) / len(counts) < 0.6)

    def test_out_of_order(self) -> None:
        """Some messages are sent after later ones; no message is lost."""
        injector = FaultInjector(FeedFaults(out_of_order=0.3), Random(1))
        sent = [payload(frames) for message in MESSAGES for frames in injector.frames(message)]
        sent += [payload(frames) for frames in injector.release()]
        order = [payload(FaultInjector(FeedFaults(), Random(1)).frames(message)[0]) for message in MESSAGES]
        self.assertNotEqual(sent, order)
        self.assertEqual(sorted(sent), sorted(order))
