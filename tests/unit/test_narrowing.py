"""The one record that cannot be written is found by halving, and nothing else is suspected for long."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.narrowing import Narrowing


@given(st.integers(1, 200), st.data())
def test_the_culprit_is_found_alone(records: int, data: st.DataObject) -> None:
    """Wherever it stands, halving ends with it alone in a batch, in about two steps a halving."""
    culprit = data.draw(st.integers(0, records - 1))
    narrowing, at, steps = Narrowing(256), 0, 0
    while True:
        batch = range(at, min(records, at + narrowing.limit))
        if culprit in batch and len(batch) == 1:
            break
        if culprit in batch:
            narrowing.refused(len(batch))
        else:
            narrowing.committed(len(batch))
            at = batch.stop
        steps += 1
    assert steps <= 17


def test_after_the_culprit_all_is_as_before() -> None:
    """When the last suspect stands, batches are as large as they were."""
    narrowing = Narrowing(256)
    narrowing.refused(2)
    narrowing.committed(1)
    assert (narrowing.limit, narrowing.narrowed) == (1, True)
    narrowing.committed(1)
    assert (narrowing.limit, narrowing.narrowed) == (256, False)


def test_smaller_batches_after_failures_grow_again() -> None:
    """Nobody knows why a batch failed: the next are smaller until one stands."""
    narrowing = Narrowing(100)
    for _ in range(9):
        narrowing.failed()
    assert (narrowing.limit, narrowing.narrowed) == (1, False)
    for _ in range(7):
        narrowing.committed(1)
    assert narrowing.limit == 100
