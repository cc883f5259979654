"""What a restore tells of its progress."""

from pipeline.runtime.restore import Meter, Progress


def test_the_remaining_time_follows_from_the_offsets_passed() -> None:
    """Holes and control records are passed in no time, so offsets, not records, tell when it ends."""
    now = 100.0
    meter = Meter(1_000, lambda: now)
    assert meter.progress(0, 1_000) == Progress(0, 1_000, 0.0, None)
    now = 102.0
    assert meter.progress(100, 600) == Progress(100, 600, 50.0, 3.0)
