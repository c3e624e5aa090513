"""Tests of govi_server.statistics.quantiles."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.statistics.quantiles import RELATIVE_ACCURACY, QuantileSketch


class QuantileSketchTests(SynchronousTestCase):
    """Quantiles in constant memory."""

    @given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
    def test_quantile_is_within_accuracy(self, times: list[float], fraction: float) -> None:
        """A quantile is within the accuracy of the true one, and the maximum is exact."""
        sketch = QuantileSketch()
        for time in times:
            sketch.add(time)
        expected = sorted(times)[ceil(fraction * len(times)) - 1]
        quantile = sketch.quantile(fraction)
        assert quantile is not None
        self.assertLessEqual(abs(quantile - expected), expected * RELATIVE_ACCURACY * 1.001)
        self.assertLessEqual(quantile, sketch.maximum)
        self.assertEqual((sketch.count, sketch.maximum), (len(times), max(times)))

    @given(st.lists(st.floats(-5, 1e5)), st.lists(st.floats(-5, 1e5)))
    def test_merged_sketch_equals_sketch_of_all_times(
        self, first_times: list[float], second_times: list[float]
    ) -> None:
        """A merged sketch equals the sketch of all times; negative times count as 0."""
        first, second, both = QuantileSketch(), QuantileSketch(), QuantileSketch()
        for time in first_times:
            first.add(time)
        for time in second_times:
            second.add(time)
        for time in first_times + second_times:
            both.add(max(0.0, time))
        first.merge(second)
        bounds = [0.1, 1.0, 1000.0]
        self.assertEqual(first.bucket_counts(bounds), both.bucket_counts(bounds))
        self.assertEqual((first.quantile(0.5), first.maximum), (both.quantile(0.5), both.maximum))

    def test_times_are_counted_between_bounds(self) -> None:
        """Times are counted between bounds, including those of 0 and those above the last bound."""
        sketch = QuantileSketch()
        for time in (0.0, 0.5, 5.0, 6.0, 5000.0):
            sketch.add(time)
        self.assertEqual(sketch.bucket_counts([1.0, 10.0, 100.0]), [2, 2, 0, 1])

    def test_empty_sketch_has_no_quantile(self) -> None:
        """Without times there is no quantile."""
        self.assertIsNone(QuantileSketch().quantile(0.5))
