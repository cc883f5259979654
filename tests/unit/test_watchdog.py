"""When a stage is taken to stand still, and what is done about it."""

from pipeline.runtime.watchdog import Patience, Place, Seen, Verdict

LIMIT_S = 10.0


class Watched:
    """A stage looked at once a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.patience = Patience(LIMIT_S, lambda: self.now)

    def look(self, seen: Seen, seconds: float = 1.0) -> Verdict:
        """The verdict at *seen*, *seconds* after the last one."""
        self.now += seconds
        return self.patience.look(seen)


def at(
    committed: int | None, restored: int | None = 0, *, waiting: frozenset[int] | None = frozenset({0})
) -> Seen:
    """A stage with partition 0 there; *waiting* None: nobody knows whether it has work to do."""
    return Seen({0: Place(committed, restored)}, waiting)


UNASSIGNED = Seen(None, None)
IDLE = at(7, waiting=frozenset())


def test_a_stage_that_moves_is_fine() -> None:
    """However long it works: each look shows another position."""
    one = Watched()
    assert {one.look(at(number)) for number in range(100)} == {Verdict.FINE}
    assert one.patience.idle_s == 0


def test_a_stage_without_work_is_fine() -> None:
    """A position may stand as long as it is known that nothing waits."""
    one = Watched()
    assert {one.look(IDLE) for _ in range(100)} == {Verdict.FINE}


def test_a_position_that_stands_though_records_wait_is_noticed() -> None:
    """At the limit the group joins anew; as long again, and it is in doubt; then at each limit more."""
    one = Watched()
    found = [one.look(at(7)) for _ in range(36)]
    told = [(second, verdict) for second, verdict in enumerate(found) if verdict is not Verdict.FINE]
    assert told == [(11, Verdict.REJOIN), (22, Verdict.DOUBT), (33, Verdict.DOUBT)]


def test_a_lag_that_nobody_can_read_counts_as_work() -> None:
    """Kafka that does not answer looks like this: it must not pass for an idle topic."""
    one = Watched()
    assert Verdict.REJOIN in [one.look(at(7, waiting=None)) for _ in range(12)]


def test_one_partition_that_stands_is_enough() -> None:
    """Others that move do not hide it."""
    one = Watched()
    both = [Seen({0: Place(number, 0), 1: Place(5, 0)}, frozenset({0, 1})) for number in range(12)]
    assert [one.look(seen) for seen in both][-1] is Verdict.REJOIN


def test_a_group_that_is_never_assigned_is_noticed() -> None:
    """No assignment for longer than the limit, from the beginning or after one."""
    fresh, later = Watched(), Watched()
    later.look(IDLE)
    for one in (fresh, later):
        assert Verdict.REJOIN in [one.look(UNASSIGNED) for _ in range(12)]


def test_a_member_without_partitions_is_fine() -> None:
    """More processes than partitions: some own nothing, and that is no standstill."""
    one = Watched()
    assert {one.look(Seen({}, frozenset())) for _ in range(100)} == {Verdict.FINE}


def test_joining_anew_is_no_progress() -> None:
    """The fresh task knows its place only after a while, and then it is the old one: doubt follows."""
    one = Watched()
    for _ in range(12):
        one.look(at(7, 3))
    again = [UNASSIGNED] * 2 + [at(None, None)] * 2 + [at(None, 3)] * 2 + [at(7, 3)] * 5
    assert [one.look(seen) for seen in again][-1] is Verdict.DOUBT


def test_a_restore_is_progress() -> None:
    """A store that is read back for an hour moves, though nothing is committed meanwhile."""
    one = Watched()
    assert {one.look(at(None, restored)) for restored in range(1, 100)} == {Verdict.FINE}


def test_progress_after_joining_anew_is_forgiven() -> None:
    """The next standstill begins with joining anew, not with doubt."""
    one = Watched()
    before = [one.look(at(7)) for _ in range(12)]
    one.look(at(8))
    after = [one.look(at(8)) for _ in range(12)]
    assert before[-1] is Verdict.REJOIN
    assert [verdict for verdict in after if verdict is not Verdict.FINE] == [Verdict.REJOIN]


def test_a_partition_that_has_gone_is_forgotten() -> None:
    """It stood here; another process has it now."""
    one = Watched()
    for _ in range(9):
        one.look(at(7))
    one.look(Seen({}, frozenset()))
    assert one.look(at(7), seconds=LIMIT_S) is Verdict.FINE
