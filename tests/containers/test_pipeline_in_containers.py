"""The pipeline as its image runs it, on a network of containers, with the oracle as judge."""

import signal
from collections.abc import Iterator

import pytest
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy

from tests.containers.hardened import START_S, UNCHECKED, hardened
from tests.containers.world import World, python, running_world, until_handled, until_said, wrapped

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

RATE = 40
ENOUGH = 20_000
"""Comparisons; of so little traffic not every measure occurs, as it does in that of `pipeline dev`."""
STATE = "/var/lib/pipeline"
STOP_S = 30
"""Above the program's own deadline; after it the engine kills."""
SOURCES = "receiver,clock,poller"
STAGES = "decode,broadcast,enrich,engagement,rollup,statistics"
WRITES = """
import errno, json, pathlib
def tried(place):
    try:
        pathlib.Path(place, "written").write_text("")
    except OSError as error:
        return errno.errorcode[error.errno]
print(json.dumps({place: tried(place) for place in ("/", "/opt/pipeline", "/etc/pipeline", "/tmp", "%s")}))
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """One for all tests here; the first needs it fresh, because its windows close at a set time."""
    with running_world() as made:
        yield made


def test_a_worker_killed_amid_traffic_loses_and_doubles_nothing(world: World) -> None:
    """Two workers share the stages; one is killed, and started again on the disk that it left."""
    sources, stays = world.pipeline("sources", "--only", SOURCES), world.pipeline("stays", "--only", STAGES)
    with sources, stays, world.pipeline("killed", "--only", STAGES) as killed:
        world.send("sources", RATE)
        world.sent(8 * RATE)
        wrapped(killed).kill()
        assert wrapped(killed).attrs["State"]["ExitCode"] == 137
        world.sent(4 * RATE)
        wrapped(killed).start()
        until_said(killed, '"kind":"ready"', 2)
        world.sent(18 * RATE)
        world.stop()
        report = world.verified()
    assert report["failed_checks"] == {}, report["examples"]
    assert report["compared"] >= ENOUGH


def test_it_writes_nothing_but_its_state(world: World) -> None:
    """Neither the image nor the settings can be changed by whoever takes the process over."""
    with world.pipeline("contained") as one:
        found = python(one, WRITES % STATE)
    assert found == {
        "/": "EROFS",
        "/opt/pipeline": "EROFS",
        "/etc/pipeline": "EROFS",
        "/tmp": None,
        STATE: None,
    }


def test_it_runs_as_a_user_without_rights(world: World) -> None:
    """The image names the user by number, so that a cluster can tell that it is not root."""
    with world.pipeline("unprivileged") as one:
        user, _, group = wrapped(one).attrs["Config"]["User"].partition(":")
        assert python(one, "import os; print([os.getuid(), os.getgid()])") == [int(user), int(group)]
    assert int(user) > 0
    assert int(group) > 0


def test_its_health_is_told_by_the_admin_port(world: World) -> None:
    """An engine knows from the image alone whether the process answers."""
    with world.pipeline("healthy") as one:
        HealthcheckWaitStrategy().with_startup_timeout(START_S).wait_until_ready(one)
        (checked, *_) = wrapped(one).attrs["State"]["Health"]["Log"]
    assert checked["ExitCode"] == 0


def test_sigterm_ends_it_before_it_has_begun() -> None:
    """Process 1 gets no signal that it has no handler for: one comes before all else is loaded."""
    waiting = ("run", "--settings", "/dev/stdin")
    with hardened(*waiting, ready="", healthcheck=UNCHECKED, stdin_open=True) as one:
        until_handled(one, signal.SIGTERM)
        wrapped(one).stop(timeout=STOP_S)
        assert wrapped(one).attrs["State"]["ExitCode"] == 128 + signal.SIGTERM


def test_sigterm_ends_it_in_order(world: World) -> None:
    """Under traffic, the first signal lets it finish and end with 0 before the engine would kill it."""
    with world.pipeline("stopped") as one:
        world.send("stopped", RATE)
        world.sent(5 * RATE)
        wrapped(one).stop(timeout=STOP_S)
        world.stop()
        assert wrapped(one).attrs["State"]["ExitCode"] == 0, wrapped(one).logs(tail=50).decode()
