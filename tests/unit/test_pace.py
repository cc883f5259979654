"""Long work yields in between, whatever a record costs."""

from pipeline.runtime.pace import YIELD_S, Stride


def test_a_stride_is_halved_until_it_is_short_enough() -> None:
    """Steps that take long are taken one by one in the end, never fewer."""
    stride = Stride(50)
    for _ in range(10):
        stride.took(2 * YIELD_S)
    assert stride.records == 1


def test_a_stride_grows_again_up_to_its_bound() -> None:
    """What was slow for a moment does not stay slow."""
    stride = Stride(5)
    stride.took(2 * YIELD_S)
    found = []
    for _ in range(5):
        stride.took(0.0)
        found.append(stride.records)
    assert found == [3, 4, 5, 5, 5]
