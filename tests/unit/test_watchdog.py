"""When a stage is taken to stand still, and what is done about it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.effects import Unit
from pipeline.runtime.watchdog import Patience, Place, Seen, Watchdog
from pipeline.settings import RuntimeSettings
from tests.unit.runtime_toys import STAGE

LIMIT_S = 10.0


class Watched:
    """A stage looked at once a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.patience = Patience(LIMIT_S, lambda: self.now)

    def due(self, *looks: Seen) -> list[int]:
        """At which of *looks*, one a second, something is to be done."""
        due = []
        for number, seen in enumerate(looks):
            self.now += 1
            if self.patience.look(seen):
                due.append(number)
        return due


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
    assert one.due(*(at(number) for number in range(100))) == []
    assert one.patience.idle_s == 0


def test_a_stage_without_work_is_fine() -> None:
    """A position may stand as long as it is known that nothing waits."""
    assert Watched().due(*[IDLE] * 100) == []


def test_a_position_that_stands_though_records_wait_is_noticed() -> None:
    """Beyond the limit something is to be done, and again whenever that has not helped for as long."""
    one = Watched()
    assert one.due(*[at(7)] * 36) == [11, 22, 33]
    assert (one.patience.idle_s, one.patience.spent) == (35, True)


def test_a_lag_that_nobody_can_read_counts_as_work() -> None:
    """Kafka that does not answer looks like this: it must not pass for an idle topic."""
    assert Watched().due(*[at(7, waiting=None)] * 12) == [11]


def test_one_partition_that_stands_is_enough() -> None:
    """Others that move do not hide it."""
    both = [Seen({0: Place(number, 0), 1: Place(5, 0)}, frozenset({0, 1})) for number in range(12)]
    assert Watched().due(*both) == [11]


def test_a_group_that_is_never_assigned_is_noticed() -> None:
    """No assignment for longer than the limit, from the beginning or after one."""
    assert Watched().due(*[UNASSIGNED] * 12) == [10]
    assert Watched().due(IDLE, *[UNASSIGNED] * 12) == [11]


def test_a_member_without_partitions_is_fine() -> None:
    """More processes than partitions: some own nothing, and that is no standstill."""
    assert Watched().due(*[Seen({}, frozenset())] * 100) == []


def test_joining_anew_is_no_progress() -> None:
    """The fresh task knows its place only after a while, and then it is the old one."""
    again = [UNASSIGNED] * 2 + [at(None, None)] * 2 + [at(None, 3)] * 2 + [at(7, 3)] * 5
    assert Watched().due(*[at(7, 3)] * 12, *again) == [11, 22]


def test_a_restore_is_progress() -> None:
    """A store that is read back for an hour moves, though nothing is committed meanwhile."""
    assert Watched().due(*(at(None, restored) for restored in range(1, 100))) == []


def test_progress_is_forgiving() -> None:
    """Who moves again stands anew only after the whole limit."""
    one = Watched()
    assert one.due(*[at(7)] * 12, at(8)) == [11]
    assert not one.patience.spent
    assert one.due(*[at(8)] * 11) == [10]


def test_a_partition_that_has_gone_is_forgotten() -> None:
    """It stood here; another process has it now, and what comes back begins anew."""
    assert Watched().due(*[at(7)] * 9, Seen({}, frozenset()), *[at(7)] * 11) == []


def seen_of(lag: int, **task: Any) -> Seen:
    """What the watchdog sees of the toy stage with one task."""
    unit = Unit(stage=STAGE)
    one = SimpleNamespace(
        **{"unit": unit, "state": "working", "idle": True, "next_offsets": {"in": 7}, "reached": 3, **task}
    )
    group = SimpleNamespace(unit=unit, tasks={0: one}, assigned=True)
    dog = Watchdog(cast(Any, group), cast(Any, SimpleNamespace(settings=RuntimeSettings())))
    dog._lags = {0: lag}
    return dog._seen()


@pytest.mark.parametrize(
    ("lag", "task", "waits"),
    [
        (0, {}, False),
        (1, {}, True),
        (0, {"idle": False}, True),
        (0, {"state": "restoring"}, True),
        (0, {"state": "backing off"}, True),
    ],
)
def test_a_task_has_work_where_anything_is_left_to_do(lag: int, task: dict[str, Any], *, waits: bool) -> None:
    """Records that wait, a batch that is not committed, or a state that is not there yet."""
    assert seen_of(lag, **task) == Seen({0: Place(7, 3)}, frozenset({0} if waits else ()))


def test_a_fresh_task_knows_no_place() -> None:
    """Nothing read back yet is not a place at the beginning."""
    assert seen_of(0, next_offsets={}, reached=0).places == {0: Place(None, None)}
