"""The schedule of faults: a pure function of the seed, within its bounds."""

import itertools

import pytest

from pipeline.chaos.schedule import BROKERS, LONGEST_S, PROCESSES, Fault, Kind, schedule

MINUTE_S = 60.0
SEEDS = range(20)
AWAY = {Kind.BROKER_KILLED, Kind.BROKER_FROZEN}


def away(faults: tuple[Fault, ...]) -> list[tuple[float, float]]:
    """From when to when a broker is away, in order."""
    return [(fault.at_s, fault.at_s + fault.for_s) for fault in faults if fault.kind in AWAY]


def test_the_same_seed_plans_the_same_faults() -> None:
    """A run can be repeated; another seed is another run."""
    assert schedule(3, MINUTE_S) == schedule(3, MINUTE_S)
    assert schedule(3, MINUTE_S) != schedule(4, MINUTE_S)


def test_a_longer_run_begins_as_the_shorter_one() -> None:
    """A failure of a long run is found again in a short one."""
    short, long = schedule(3, MINUTE_S), schedule(3, 4 * MINUTE_S)
    assert long[: len(short)] == short


@pytest.mark.parametrize("seed", SEEDS)
def test_a_minute_has_every_kind_of_fault(seed: int) -> None:
    """The short form proves as many kinds as the long one, whatever the seed."""
    assert {fault.kind for fault in schedule(seed, MINUTE_S)} == set(Kind)


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_keep_within_the_run(seed: int) -> None:
    """They come in order, none after the end, and last no longer than is promised."""
    times = [fault.at_s for fault in schedule(seed, MINUTE_S)]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < MINUTE_S
    assert max(fault.for_s for fault in schedule(seed, MINUTE_S)) <= LONGEST_S


@pytest.mark.parametrize("seed", SEEDS)
def test_one_broker_is_away_at_a_time(seed: int) -> None:
    """With two of three away nothing could be written, and nothing would be tried but waiting."""
    times = away(schedule(seed, 10 * MINUTE_S))
    assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(times))


def test_kills_come_in_bursts() -> None:
    """A second kill strikes what is just starting: some follow within a second."""
    kills = [fault.at_s for fault in schedule(1, 10 * MINUTE_S) if fault.kind is Kind.SIGKILL]
    gaps = [after - before for before, after in itertools.pairwise(kills)]
    assert sum(0.1 <= gap <= 1.0 for gap in gaps) > len(gaps) / 3


def test_every_process_and_broker_is_struck() -> None:
    """Nothing is spared in a run of ten minutes."""
    assert {fault.target for fault in schedule(1, 10 * MINUTE_S)} >= {*PROCESSES, *BROKERS}


def test_a_zombie_outlives_its_session() -> None:
    """It sleeps for longer than the group waits for it, so that it wakes up beside its successor."""
    session_s = 6.0
    zombies = [fault for fault in schedule(1, 10 * MINUTE_S) if fault.kind is Kind.ZOMBIE]
    assert zombies
    assert min(fault.for_s for fault in zombies) > 1.2 * session_s
