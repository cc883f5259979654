"""The laws of the broadcast stage, through the driver."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from pipeline.events import LocationTag
from pipeline.stages import broadcast
from pipeline.testing import EPOCH_MS, Driver

COPIES = "users.tags.by-partition"
PARTITIONS = 3

#: (tag id, name or None for a tombstone), in the order of their arrival
HISTORIES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c:d"]), st.none() | st.sampled_from(["VIP", "Gold"])), max_size=12
)
History = list[tuple[str, str | None]]


def send(driver: Driver, history: History) -> None:
    """Write *history* to ``users.tags``, one record a millisecond."""
    for number, (tag_id, name) in enumerate(history):
        value = name and LocationTag(tenant="acme", location_id="l", tag_id=tag_id, name=name)
        driver.send("users.tags", f"acme:{tag_id}", value or None, at=EPOCH_MS + number)


def ran(history: History, batches: tuple[int, ...] = (100,)) -> Driver:
    """A driver that has taken *history* in batches of those sizes."""
    driver = Driver([broadcast.STAGE], partitions=PARTITIONS, batches=batches)
    send(driver, history)
    driver.run()
    return driver


def copies(driver: Driver) -> dict[int, dict[str, str]]:
    """Partition -> key -> the name that its copy holds."""
    tables: dict[int, dict[str, str]] = defaultdict(dict)
    for record in driver.records(COPIES):
        event = driver.codec.decode(record)
        tables[record.partition].pop(event.key, None)
        if event.value is not None:
            tables[record.partition][event.key] = event.value.name
    return {number: tables[number] for number in range(PARTITIONS)}


def final(history: History) -> dict[str, str]:
    """Key -> name, as *history* leaves it."""
    last = dict(history)
    return {f"acme:{tag_id}": name for tag_id, name in last.items() if name is not None}


@given(HISTORIES)
def test_every_partition_holds_every_tag(history: History) -> None:
    """Each partition's copies are the table of tags, whatever came and went."""
    assert copies(ran(history)) == dict.fromkeys(range(PARTITIONS), final(history))


@given(HISTORIES)
def test_a_redelivered_tag_changes_no_copy(history: History) -> None:
    """The last record of each tag, delivered again, leaves the copies as they are."""
    driver = ran(history)
    before = copies(driver)
    send(driver, list(dict(history).items()))
    driver.run()
    assert copies(driver) == before


@given(HISTORIES, st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_the_split_into_batches_does_not_matter(history: History, batches: list[int]) -> None:
    """Any split into batches leaves the same copies."""
    assert copies(ran(history, tuple(batches))) == copies(ran(history))


@given(HISTORIES, HISTORIES)
def test_a_restart_changes_no_copy(early: History, late: History) -> None:
    """A stage restored between two records goes on as if it had never stopped."""
    driver = ran(early)
    driver.restart()
    send(driver, late)
    driver.run()
    assert copies(driver) == copies(ran(early + late))
