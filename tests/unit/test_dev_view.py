"""What the live view of `pipeline dev` says."""

from pipeline.dev.view import restore_line
from pipeline.runtime.restore import Progress


def test_restores_are_added_up() -> None:
    """Records, what remains and rates of all restores together; the last of them decides when it ends."""
    line = restore_line([Progress(1_000, 3_000, 500.0, 6.0), Progress(2_000, 90_000, 1_500.0, 60.4)])
    assert line == "2 stores  3,000 records  93,000 to go  2,000/s  60 s left"


def test_no_end_is_promised_before_anybody_can_tell() -> None:
    """A restore that has only begun has no rate."""
    assert restore_line([Progress(0, 10)]) == "1 stores  0 records  10 to go  0/s"
    assert restore_line([]) == ""
