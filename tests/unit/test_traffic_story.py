"""The story that the sample traffic tells, without anything being sent."""

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import phonenumbers
import pytest

from pipeline.errors import ConfigError
from pipeline.sandbox.faults import Faults
from pipeline.sandbox.ledger import Ledger
from pipeline.sandbox.sakari_state import EVENT_TYPES
from pipeline.sandbox.state import Hook, SandboxState
from pipeline.sandbox.traffic import Traffic
from pipeline.sandbox.webhooks import Webhooks
from pipeline.sandbox.world import tenant_specs

START_MS = 1_893_500_000_000
COUNT = 6_000


def told(directory: Path, seed: int = 1) -> tuple[Traffic, list[Hook]]:
    """A story of `COUNT` webhooks."""
    with Ledger(directory / f"ledger {seed}") as ledger:
        state = SandboxState(seed=seed)
        traffic = Traffic(state, ledger, Webhooks(Faults()), seed=seed, start_ms=START_MS)
        return traffic, [planned.hook for planned in traffic.preview(COUNT)]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Traffic, list[Hook]]:
    """One story for all tests that only look at it."""
    return told(tmp_path_factory.mktemp("story"))


def created(hook: Hook) -> datetime:
    """When the message of *hook* was created."""
    return datetime.fromisoformat(hook.body["payload"]["created"]["at"])


def test_the_same_seed_tells_the_same_story(story: tuple[Traffic, list[Hook]], tmp_path: Path) -> None:
    """Bodies are equal byte by byte and in the same order."""
    assert [hook.encoded() for hook in told(tmp_path)[1]] == [hook.encoded() for hook in story[1]]


def test_another_seed_tells_another(story: tuple[Traffic, list[Hook]], tmp_path: Path) -> None:
    """The seed decides what happens."""
    kinds = Counter(hook.kind for hook in told(tmp_path, seed=2)[1])
    assert kinds != Counter(hook.kind for hook in story[1])


def test_everything_that_can_be_told_is_told(story: tuple[Traffic, list[Hook]]) -> None:
    """Each kind of webhook of both vendors that the sandbox knows occurs."""
    users = {"ContactCreate", "ContactUpdate", "ContactDelete", "ContactTagUpdate", "ContactDndUpdate"}
    users |= {"InboundMessage", "OutboundMessage"}
    assert {hook.kind for hook in story[1]} == set(EVENT_TYPES) | users


def test_messages_span_ten_days(story: tuple[Traffic, list[Hook]]) -> None:
    """The oldest is more than eight days older than the newest, and none more than ten and a half."""
    times = [created(hook) for hook in story[1] if hook.kind.startswith("message")]
    assert timedelta(days=8) < max(times) - min(times) < timedelta(days=10.5)


def test_a_share_is_late_and_a_share_closes(story: tuple[Traffic, list[Hook]]) -> None:
    """Most messages are of now; some are older than the boundary, and some of the hour before it."""
    ages = Counter(_era(story[0], hook) for hook in story[1] if hook.kind.startswith("message"))
    shares = {era: count / ages.total() for era, count in ages.items()}
    assert 0.01 < shares["old"] < 0.1
    assert 0.02 < shares["closing"] < 0.15


def _era(traffic: Traffic, hook: Hook) -> str:
    hours = (traffic.world.boundary_ms / 1_000 - created(hook).timestamp()) / 3_600
    return "now" if hours <= 0 else "closing" if hours <= 1 else "old"


def test_messages_reach_every_state(story: tuple[Traffic, list[Hook]]) -> None:
    """Some are delivered, some fail in each way, some never report, and some are corrected."""
    messages = [m for t in story[0].world.tenants.values() for m in t.account.messages.values()]
    states = {message["status"] for message in messages}
    assert states >= {"queued", "sent", "delivered", "error", "invalid", "undelivered", "received"}


def test_opt_changes_come_with_and_without_a_time(story: tuple[Traffic, list[Hook]]) -> None:
    """Both ways, out and in, and an account goes back to telling times."""
    seen = {(hook.kind, "updated" in hook.body["payload"]) for hook in story[1] if "-opt-" in hook.kind}
    assert seen >= {(f"contact-opt-{way}", timed) for way in ("in", "out") for timed in (True, False)}
    assert all(tenant.account.opt_times for tenant in story[0].world.tenants.values())


def test_untimed_opt_changes_are_never_reordered(tmp_path: Path) -> None:
    """Nothing may overtake them, nor are they delayed."""
    with Ledger(tmp_path / "ledger") as ledger:
        traffic = Traffic(SandboxState(), ledger, Webhooks(Faults()), seed=1, start_ms=START_MS)
        told = traffic.preview(2_000)
    opts = [each for each in told if each.hook.kind.startswith("contact-opt")]
    untimed = [each for each in opts if "updated" not in each.hook.body["payload"]]
    assert untimed
    assert all(each.ordered and not each.delay_s and each.again_s is None for each in untimed)


def test_a_contacts_history_only_goes_forward(story: tuple[Traffic, list[Hook]]) -> None:
    """No two things happen to one contact at the same instant, except what one change causes."""
    latest: dict[str, datetime] = {}
    for hook in story[1]:
        assert hook.at >= latest.get(hook.subject, hook.at)
        latest[hook.subject] = hook.at


def test_mobiles_are_valid_and_set_aside_for_fiction(story: tuple[Traffic, list[Hook]]) -> None:
    """They parse in their country; those of North America are 555-01xx."""
    contacts = [c for t in story[0].world.tenants.values() for c in t.account.contacts.values()]
    mobiles = [c["mobile"] for c in contacts if "mobile" in c and c["mobile"]["number"] != "555-0100"]
    assert all(
        phonenumbers.is_valid_number(phonenumbers.parse(each["number"], each["country"])) for each in mobiles
    )
    assert all("-555-01" in each["number"] for each in mobiles if each["country"] != "DE")
    assert {each["country"] for each in mobiles} == {"US", "CA", "DE"}


def test_the_same_people_are_on_both_systems(story: tuple[Traffic, list[Hook]]) -> None:
    """Most people are; some are on one only, and some have no mobile."""
    people = [person for tenant in story[0].world.tenants.values() for person in tenant.people]
    both = [person for person in people if person.sakari_id and person.users_id]
    assert len(people) / 3 < len(both) < len(people)


def test_few_people_leave(story: tuple[Traffic, list[Hook]]) -> None:
    """So few that no scan looks suspicious: at most ten of one system and tenant."""
    removed = Counter(hook.owner for hook in story[1] if hook.kind in ("contact-removed", "ContactDelete"))
    assert removed
    assert max(removed.values()) <= 10


@pytest.mark.parametrize("names", [(), ("acme", "acme")])
def test_tenants_must_be_named_once(names: tuple[str, ...]) -> None:
    """None, or one twice, is refused."""
    with pytest.raises(ConfigError, match="tenants"):
        tenant_specs(names)


def test_unknown_tenants_get_zones_in_turn() -> None:
    """Any name will do."""
    specs = tenant_specs(["acme", "north", "south"])
    assert [spec.time_zone for spec in specs] == ["UTC", "Asia/Kolkata", "UTC"]
