"""A backfill over both sandboxes: each page once, whatever cuts it off, and the same facts as webhooks."""

from collections import Counter
from typing import Any, NamedTuple

import pytest

from pipeline.codec import Record, text_headers
from pipeline.errors import BrokerError, Rejected, Throttled, Unavailable
from pipeline.events import Received
from pipeline.identity import Identity
from pipeline.instants import Time
from pipeline.sources.history import Period
from pipeline.sources.scan import Page, Resource
from pipeline.stages.decode import Config, TenantConfig, stage
from pipeline.testing import Driver
from pipeline.writer import Output
from tests.unit.backfill_world import AT, CODEC, NOW_MS, PERIOD, Kept, Tried, opened
from tests.unit.test_resources import World

PEOPLE = 7


class Sent(NamedTuple):
    """One record of ``sources.received``."""

    key: str
    body: bytes
    headers: dict[str, str]


def told(output: Output) -> dict[str, str]:
    """The headers of *output*."""
    return text_headers(output.headers)


def bodies(outputs: list[Output]) -> Counter[tuple[str, bytes]]:
    """Resource and content of *outputs*."""
    return Counter((told(each)["resource"], each.value or b"") for each in outputs)


@pytest.mark.parametrize(
    ("product", "records"), [("sakari", 3 * PEOPLE), ("users", 4 * PEOPLE + 1)], ids=["sakari", "users"]
)
async def test_everything_of_a_product_is_published_once(product: str, records: int) -> None:
    """Each item of each resource is one record, and the job is done by as many calls as it took."""
    async with opened() as tried:
        runner = Kept()
        job = await tried.run(product, runner)
    assert (job.state, job.error) == ("done", None)
    assert (len(runner.outputs), len(bodies(runner.outputs))) == (records, records)
    assert (runner.standing.items, runner.standing.published) == (records, records)
    assert job.done > 0


async def test_a_record_is_what_a_poller_would_write_but_for_its_source() -> None:
    """Decode reads it like a polled item, knows it as backfilled, and orders it by when it was asked for."""
    async with opened() as tried:
        runner = Kept()
        await tried.run("sakari", runner)
    for output in runner.outputs:
        record = Record(
            output.topic, output.partition, 0, output.timestamp, output.key, output.value, (*output.headers,)
        )
        event = CODEC.decode(record)
        value: Received = event.value
        assert event.backfill
        assert (value.source, value.product, value.tenant, value.verified) == (
            "backfill",
            "sakari",
            "acme",
            True,
        )
        assert value.scan_started_at == event.received_at == NOW_MS
        assert event.key.startswith("acme:s:")
    assert len({told(each)["traceparent"] for each in runner.outputs}) == len(runner.outputs)


@pytest.mark.parametrize("product", ["sakari", "users"])
async def test_a_run_cut_off_at_any_commit_goes_on_where_it_stood(product: str) -> None:
    """Whichever transaction fails, what the next runner adds makes the same records, each once."""
    async with opened() as tried:
        whole = Kept()
        await tried.run(product, whole)
        for cut in range(whole.commits):
            runner = Kept(cut=cut)
            with pytest.raises(BrokerError):
                await tried.run(product, runner)
            runner.cut = -1
            assert (await tried.run(product, runner)).state == "done"
            assert bodies(runner.outputs) == bodies(whole.outputs), cut
            assert runner.standing.items == whole.standing.items


@pytest.mark.parametrize(("wish", "state"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_a_wish_takes_effect_at_the_next_page(wish: Any, state: str) -> None:
    """The page that is under way is kept, no further one is asked for; a pause can be resumed."""
    async with opened() as tried:
        runner = Kept(wish=wish, wished=3)
        assert (await tried.run("sakari", runner)).state == state
        assert runner.commits == 3
        assert 0 < len(runner.outputs) < 3 * PEOPLE


async def test_contacts_come_before_what_names_them() -> None:
    """Messages and conversations find the contact key of their contact."""
    async with opened() as tried:
        runner = Kept()
        await tried.run("sakari", runner)
    order = list(dict.fromkeys(told(each)["resource"] for each in runner.outputs))
    assert order == ["contacts", "conversations", "messages"]


async def test_only_facts_of_the_period_are_published() -> None:
    """The message of eight days ago is none of the last week's; contacts are as they are now."""
    week = Period(Time("2029-12-25T00:00:00.000Z"), PERIOD.until)
    async with opened() as tried:
        runner = Kept()
        await tried.run("sakari", runner, week)
    counts = Counter(told(each)["resource"] for each in runner.outputs)
    assert counts == {"contacts": PEOPLE, "conversations": PEOPLE - 1, "messages": PEOPLE - 1}
    assert runner.standing.items == 3 * PEOPLE


async def test_what_fell_out_of_reach_meanwhile_is_told_and_not_published() -> None:
    """A job that was paused for weeks must not publish what decode has forgotten."""
    async with opened() as tried:
        tried.seen_days = 5
        runner = Kept()
        await tried.run("sakari", runner)
    assert runner.standing.out_of_reach == 2  # a message and its conversation
    assert runner.standing.published == 3 * PEOPLE - 2


def failing(tried: Tried, name: str, *errors: Exception) -> None:
    """Let the next reads of a resource end in *errors*."""
    resource: Resource = tried.world.found[name]
    waiting = list(errors)

    async def page(cursor: str) -> Page:
        if waiting:
            raise waiting.pop(0)
        return await resource.page(cursor)

    changed = {field: getattr(resource, field) for field in Resource.__struct_fields__}
    tried.world.found[name] = Resource(**{**changed, "page": page})


async def test_a_throttled_backfill_waits_as_it_is_told() -> None:
    """However often: it is no failure, and the job shows that it lives and what it waits for."""
    async with opened() as tried:
        failing(tried, "sakari.messages", *[Throttled("others need it", 12.0)] * 20)
        runner = Kept()
        assert (await tried.run("sakari", runner)).state == "done"
    assert sum(tried.waits) == pytest.approx(20 * 12.0)
    assert max(tried.waits) <= 5.0
    assert len(runner.outputs) == 3 * PEOPLE


async def test_a_waiting_backfill_hears_that_it_is_to_pause() -> None:
    """Not at the end of a long wait."""
    async with opened() as tried:
        failing(tried, "sakari.contacts", Throttled("others need it", 900.0))
        runner = Kept(wish="pause", wished=4)
        assert (await tried.run("sakari", runner)).state == "paused"
    assert sum(tried.waits) <= 15.0


async def test_a_resource_that_cannot_be_read_is_told_and_tried_by_a_resume() -> None:
    """The job has failed and says why; what came before stays, and the next run adds the rest."""
    async with opened() as tried:
        failing(tried, "sakari.conversations", Rejected(403, "forbidden"))
        runner = Kept()
        job = await tried.run("sakari", runner)
        assert (job.state, "forbidden" in (job.error or "")) == ("failed", True)
        assert {told(each)["resource"] for each in runner.outputs} == {"contacts"}
        assert (await tried.run("sakari", runner)).state == "done"
    assert len(runner.outputs) == 3 * PEOPLE
    assert runner.standing.failed == {}


async def test_an_api_that_is_down_is_given_up_after_some_tries() -> None:
    """With pauses that grow; then the job has failed, and can be resumed."""
    async with opened() as tried:
        failing(tried, "sakari.contacts", *[Unavailable("no connection")] * 100)
        job = await tried.run("sakari", Kept())
    assert job.state == "failed"
    assert 60 <= sum(tried.waits) <= 300


async def test_an_account_that_fails_holds_up_no_other() -> None:
    """The other tenant's account is fetched whole."""
    async with opened() as tried:
        found = tried.world.found["sakari.contacts"]
        fields = {field: getattr(found, field) for field in Resource.__struct_fields__}
        tried.world.found["other"] = Resource(**{**fields, "account": "another"})
        failing(tried, "sakari.contacts", Rejected(401, "revoked"))
        runner = Kept()
        assert (await tried.run("sakari", runner)).state == "failed"
    assert {told(each)["account"] for each in runner.outputs} == {"another"}
    assert runner.standing.finished == ("acme|another",)


async def test_an_item_too_large_for_a_record_is_passed_over_and_counted() -> None:
    """The rest of its page is published."""

    def swell(world: World) -> None:
        contact = next(iter(world.account.contacts.values()))
        contact["note"] = "x" * 950_000

    async with opened(swell) as tried:
        runner = Kept()
        assert (await tried.run("sakari", runner, resources=("contacts",))).state == "done"
    assert (runner.standing.too_large, len(runner.outputs)) == (1, PEOPLE - 1)


def hooked(world: World) -> list[Sent]:
    """Another message to everybody, and what its webhooks tell: that it was sent, and delivered."""
    account = world.account
    told = {"source": "webhook", "product": "sakari", "resource": "webhook", "tenant": "acme"}
    headers = told | {"account": account.id, "verified": "true"}
    sent = []
    for contact_id in list(account.contacts):
        change = account.add_message(contact_id=contact_id, text="again", outgoing=True, at=AT)
        hooks = [*change.hooks, *account.set_status(change.id, "delivered", at=AT).hooks]
        sent += [Sent(f"acme:s:{contact_id}", hook.encoded(), headers) for hook in hooks]
    return sent


def fetched(outputs: list[Output]) -> list[Sent]:
    """The records of a backfill."""
    return [Sent((each.key or b"").decode(), each.value or b"", told(each)) for each in outputs]


def facts(world: World, *records: Sent) -> Counter[str]:
    """The ids of the facts that decode tells of *records*, in this order."""
    terms = TenantConfig(accounts=frozenset({world.account.id}), locations=frozenset({world.location.id}))
    driver = Driver([stage(Config(identity=Identity(b"backfill tests"), tenants={"acme": terms}))])
    for key, body, headers in records:
        backfill = headers["source"] == "backfill"
        driver.send("sources.received", key, body, at=NOW_MS, headers=headers, backfill=backfill)
    driver.run()
    assert driver.records("dead-letters") == []
    return Counter(event.id for event in driver.events("sakari.events"))


async def test_webhooks_and_a_backfill_tell_the_same_facts() -> None:
    """Whichever comes first, the other repeats none; only states that have passed are the webhooks' alone."""
    async with opened() as tried:
        world, runner = tried.world, Kept()
        told = hooked(world)
        await tried.run("sakari", runner)
        items = fetched(runner.outputs)
        by_webhook, by_backfill = facts(world, *told), facts(world, *items)
        for both in (facts(world, *told, *items), facts(world, *items, *told)):
            assert both == Counter(by_webhook.keys() | by_backfill.keys())
    # sent, queued, priced and delivered of each message; the API no longer knows that it was queued
    assert len(by_webhook) == 4 * PEOPLE
    assert len(by_webhook.keys() & by_backfill.keys()) == 3 * PEOPLE


async def test_lost_webhooks_are_made_good() -> None:
    """With half of them lost, a backfill adds what they would have told, but for what has passed."""
    async with opened() as tried:
        world, runner = tried.world, Kept()
        told = hooked(world)
        await tried.run("sakari", runner)
        whole = facts(world, *told, *fetched(runner.outputs))
        mended = facts(world, *told[::2], *fetched(runner.outputs))
        none = facts(world, *fetched(runner.outputs))
    assert whole.keys() - mended.keys() <= whole.keys() - none.keys()
    assert len(whole.keys() - none.keys()) == PEOPLE
