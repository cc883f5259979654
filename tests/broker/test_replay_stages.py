"""Stages run again beside the live ones: equal tables, differences told, promoted, dropped."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson
import pytest
import pytest_asyncio

from pipeline.codec import Record, text_headers
from pipeline.events import Tick
from pipeline.headers import encoded
from pipeline.identity import Identity
from pipeline.instants import from_ms, to_ms
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.jobs import Job, Jobs, job_producer, new_job
from pipeline.runtime.replay_points import Point
from pipeline.runtime.replay_stages import behind, caught_up, chosen, drop, leftovers, planned, prepare, rerun
from pipeline.runtime.replay_tables import Difference, Promotion, compared, promote, shown
from pipeline.runtime.shadow import Shadow
from pipeline.runtime.transaction import TransactionalProducer
from pipeline.settings import Settings
from pipeline.stage import Stage
from pipeline.topology import stages
from tests.broker.test_driver_equals_runtime import cluster_of, play, prepared, recorded
from tests.kafka_fixture import running_kafka
from tests.topology.oracle_run import SECRET, Run

pytestmark = pytest.mark.asyncio(loop_scope="session")

TABLES = ("engagement.contacts", "engagement.metrics")
AGAIN = ("engagement", "rollup")


class Story(NamedTuple):
    """A live run of the whole pipeline, and a replay of its last two stages that caught up twice."""

    cluster: Cluster
    stages: tuple[Stage, ...]
    shadow: Shadow
    job: Job
    ends: tuple[dict[str, int], dict[str, int]]  #: of live topics, before the replay and after
    settings: Path  #: of the live run, as a file

    async def differences(self) -> list[Difference]:
        """By which keys the replay's tables differ."""
        return await compared(self.cluster.connection, self.shadow, 2)

    async def last(self, topic: str) -> dict[bytes, Record]:
        """Key -> its last record on *topic*."""
        return {each.key or b"": each for each in await recorded(self.cluster.connection, (topic,))}

    async def promoted(self) -> Job:
        """Promote all that differs."""
        spec = msgspec.to_builtins(Promotion(of=self.job.id, number=self.shadow.number))
        job = await _begun(self.cluster, spec)
        connection, codec = self.cluster.connection, self.cluster.codec
        async with job_producer(connection, codec, job.id) as runner:
            return await promote(connection, self.shadow, 2, runner)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def story(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """A Kafka of its own: the stages write topics of the real names."""
    folder: Path = tmp_path_factory.mktemp("replay")
    run = Run(folder / "ledger", webhooks=150).play()
    made = stages(run.settings(), Identity(SECRET))
    async with running_kafka() as kafka:
        await prepared(kafka, made)
        cluster = cluster_of(kafka, folder / "state")
        await play(cluster, run.driver, made)
        ends = await _ends(cluster)
        asked = await planned(cluster, chosen(made, AGAIN), Point(), told="earliest")
        shadow = Shadow(asked.number, chosen(made, AGAIN), cluster.codec.topics)
        job = await _begun(cluster, msgspec.to_builtins(asked))
        after = ends
        for is_first in (True, False):
            async with job_producer(cluster.connection, cluster.codec, job.id) as runner:
                job = await rerun(cluster, shadow, runner)
            if is_first:
                after = await _ends(cluster)
                await _tick(cluster)
        file = _settings_file(run.settings(), kafka, folder)
        yield Story(cluster, made, shadow, job, (ends, after), file)


async def test_a_replay_of_all_there_is_ends_with_the_same_tables(story: Story) -> None:
    """The same code over the same records leaves no key that differs."""
    assert (story.job.state, caught_up(story.job)) == ("paused", True)
    assert await behind(story.cluster, story.shadow) == {}
    assert await story.differences() == []
    for table in TABLES:
        assert len(await story.last(story.shadow.shadows[table])) > 20


async def test_a_replay_writes_to_no_live_topic(story: Story) -> None:
    """No topic of the pipeline is longer than before."""
    before, after = story.ends
    assert before == after


async def test_what_differs_is_told_by_field_and_promoted(story: Story) -> None:
    """A wrong value and a missing key of a live table are told, and mended by marked copies alone."""
    live = await story.last("engagement.contacts")
    wrong, missing = sorted(live)[:2]
    value = orjson.loads(live[wrong].value or b"")
    await _write(
        story.cluster,
        [
            live[wrong]._replace(value=orjson.dumps({**value, "sent": value["sent"] + 7})),
            live[missing]._replace(value=None),
        ],
    )
    found = await story.differences()
    assert [(each.key.encode(), each.kind) for each in found] == [
        (wrong, "changed"),
        (missing, "only-replay"),
    ]
    told = [fields async for _, fields in shown(story.cluster.connection, story.shadow, 2, found)]
    assert told[0] == {"sent": {"live": value["sent"] + 7, "replay": value["sent"]}}
    job = await story.promoted()
    assert (job.state, job.done, await story.differences()) == ("done", 2, [])
    mended = await story.last("engagement.contacts")
    assert {text_headers(mended[key].headers).get("replay") for key in (wrong, missing)} == {job.id}
    assert mended[wrong].value == live[wrong].value


async def test_a_promoted_window_is_a_later_revision(story: Story) -> None:
    """Readers take the largest revision for what holds: the promoted value's is above the live one's."""
    live = await story.last("engagement.metrics")
    key = min(live)
    value = orjson.loads(live[key].value or b"")
    spoilt = {**value, "revision": value["revision"] + 5, "closed": not value["closed"]}
    await _write(story.cluster, [live[key]._replace(value=orjson.dumps(spoilt))])
    await story.promoted()
    mended = (await story.last("engagement.metrics"))[key]
    assert orjson.loads(mended.value or b"") == {**value, "revision": value["revision"] + 6}
    assert text_headers(mended.headers)["ce_id"] == f"{key.decode()}|{value['revision'] + 6}"
    assert await story.differences() == []


async def test_dropping_leaves_nothing_of_the_replay(story: Story) -> None:
    """Topics, changelogs and groups of the dropped number go; those of others stay."""
    asked = await planned(story.cluster, chosen(story.stages, AGAIN), Point(), told="earliest")
    assert asked.number == story.shadow.number + 1
    shadow = Shadow(asked.number, chosen(story.stages, AGAIN), story.cluster.codec.topics)
    await prepare(story.cluster, shadow, asked)
    topics, groups = await leftovers(story.cluster, shadow)
    assert (len(topics) > len(shadow.shadows), len(groups)) == (True, 2)
    await drop(story.cluster, shadow, topics, groups)
    assert await leftovers(story.cluster, shadow) == ([], [])
    assert len((await leftovers(story.cluster, story.shadow))[0]) == len(topics)


async def test_the_commands_make_compare_and_drop_a_replay(story: Story) -> None:
    """Started as an operator does, a replay catches up, is compared, and is gone after drop."""
    started = await _replay(story, "start", "stages", "engagement", "--since", "earliest", "--yes")
    assert started[-1]["cursor"] == {"caught_up": True}
    id_ = started[-1]["id"]
    assert await _replay(story, "diff", id_) == [{"kind": "differences", "count": 0}]
    plan, dropped = await _replay(story, "drop", id_, "--yes")
    assert (dropped["topics"], dropped["groups"]) == (len(plan["topics"]), 1)
    (job,) = await _replay(story, "status", id_)
    assert job["state"] == "cancelled"


async def _replay(story: Story, *words: str) -> list[dict[str, Any]]:
    """The lines that `pipeline replay WORDS` prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "pipeline", "replay", *words, "--settings", str(story.settings), "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"SECRET": SECRET.decode(), "PATH": "/usr/bin:/bin"},
    )
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return [msgspec.json.decode(line) for line in out.splitlines()]


def _settings_file(settings: Settings, kafka: str, folder: Path) -> Path:
    """What an operator would have written down of *settings*."""
    secret = {"env": "SECRET"}
    tenants = {
        name: {
            "time_zone": tenant.time_zone,
            "region": tenant.region,
            "sakari": [
                {
                    "account_id": account.account_id,
                    "client_id": secret,
                    "client_secret": secret,
                    "webhook_secrets_sha256": ["00" * 32],
                }
                for account in tenant.sakari
            ],
            "users": [{"location_id": each.location_id, "token": secret} for each in tenant.users],
        }
        for name, tenant in settings.tenants.items()
    }
    content = {
        "application_id": "same",
        "profile": "dev",
        "kafka": {"bootstrap_servers": kafka},
        "identity_secret": secret,
        "engagement": {"grace_s": settings.engagement.grace_s},
        "runtime": {"state_dir": str(folder / "again")},
        "tenants": tenants,
    }
    file = folder / "settings.yaml"
    file.write_bytes(orjson.dumps(content))
    return file


async def _begun(cluster: Cluster, spec: dict[str, object]) -> Job:
    jobs = Jobs(cluster.connection, cluster.codec)
    try:
        return await jobs.create(new_job("replay", spec))
    finally:
        await jobs.close()


async def _write(cluster: Cluster, records: list[Record]) -> None:
    """Append *records* where they say."""
    producer = TransactionalProducer(cluster.connection, "same.bug", "same", 30)
    await producer.start()
    for r in records:
        sent = (r.timestamp, r.key, r.value, encoded(list(r.headers)))
        await producer.commit({(r.topic, r.partition): [sent]}, {})
    await producer.drop()


async def _tick(cluster: Cluster) -> None:
    """Let the clock go on, as it does: the next tick closes windows that came after the last one."""
    ticks = {each.partition: each for each in await recorded(cluster.connection, ("clock.ticks",))}
    latest = max(to_ms(msgspec.json.decode(each.value or b"", type=Tick).at) for each in ticks.values())
    value = msgspec.json.encode(Tick(from_ms(latest + 1)))
    await _write(cluster, [each._replace(value=value) for each in ticks.values()])


async def _ends(cluster: Cluster) -> dict[str, int]:
    """How long each live topic is."""
    names = [name for name in cluster.codec.topics if cluster.codec.topics[name].partitions is None]
    return {name: len(await recorded(cluster.connection, (name,))) for name in names}
