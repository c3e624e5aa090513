"""Settings of pytest for all tests."""

import gc


def pytest_collection_finish() -> None:
    """Exempt the objects of the program and of the tests from collections, a sixth of the processor time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
