"""Exactly the rights that are exported, on a Kafka that denies all others: what works, and what does not."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from pipeline.cli import cluster, main
from pipeline.preflight import NAMES
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.run import opened
from pipeline.settings import Settings
from tests.broker.test_readme_snippet import activity
from tests.contract import standards
from tests.topology.test_whole_graph import webhook

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_S = 60
USERS = ("admin", "growth", *(f"pipeline-{part}" for part in NAMES))
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
KAFKA = {
    "listener.security.protocol.map": "BROKER:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.broker.plain.sasl.jaas.config": " ".join(
        (PLAIN, 'username="admin" password="admin"', *(f'user_{user}="{user}"' for user in USERS))
    )
    + ";",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:admin;User:ANONYMOUS",  # only the controller's own listener knows no users
}
SECRET = "0123456789abcdef0123456789abcdef"
ACCOUNT = {
    "account_id": "a1",
    "client_id": {"value": "c"},
    "client_secret": {"value": "s"},
    "webhook_secrets_sha256": [hashlib.sha256(SECRET.encode()).hexdigest()],
}
NOBODY = "http://127.0.0.1:9"  #: the poller meets no API there, and goes on
SETTINGS = {
    "profile": "dev",
    "tenants": {"acme": {"sakari": [ACCOUNT]}},
    "identity_secret": {"value": "s" * 32},
    "sakari": {"base_url": NOBODY},
    "clock": {"interval_s": 1},
    "admin": {"port": 0},
    "receiver": {"port": 0},
}


class Secured(NamedTuple):
    """A Kafka that knows users, and where a test may write."""

    servers: str
    folder: Path

    def client(self, user: str) -> dict[str, Any]:
        """How *user* reaches it."""
        return {
            "bootstrap_servers": self.servers,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": user,
            "sasl_plain_password": user,
        }

    def settings(self, user: str) -> Settings:
        """The settings of a process of *user*."""
        client = {name.replace("_plain_", "_"): value for name, value in self.client(user).items()}
        kafka = {**client, "sasl_password": {"value": user}}
        runtime = {"state_dir": str(self.folder / user)}
        return Settings.model_validate({**SETTINGS, "kafka": kafka, "runtime": runtime})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    """All topics, and the exported rights of the users that the tests are."""
    async with EmbeddedBroker(settings=KAFKA) as broker:
        made = Secured(broker.bootstrap_servers, tmp_path_factory.mktemp("secured"))
        settings = made.settings("admin")
        await cluster.apply(settings, await cluster.plan(settings))
        await granted(made)
        yield made


async def granted(secured: Secured) -> None:
    """Carry out what `pipeline topics export --acls` wrote, with Kafka's own tool."""
    folder, teams = secured.folder, "growth=engagement.contacts,engagement.metrics"
    assert main(["topics", "export", "--acls", str(folder), "--subscriber", teams]) == 0
    (folder / "note.sh").write_text(f"#!/bin/sh\nIFS='\t'\necho \"$*\" >> {folder}/commands\n")
    (folder / "note.sh").chmod(0o700)
    client = (
        f'security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config={PLAIN} username="admin"'
    )
    (folder / "admin.properties").write_text(f'{client} password="admin";\n')
    reaching = ["--bootstrap-server", secured.servers, "--command-config", f"{folder}/admin.properties"]
    told = await asyncio.create_subprocess_exec(
        *("sh", f"{folder}/acls.sh", *reaching), env={**os.environ, "KAFKA_ACLS": f"{folder}/note.sh"}
    )
    assert await told.wait() == 0
    await asyncio.to_thread(standards.kafka_acls, folder / "commands")


@asynccontextmanager
async def started(client: Any) -> AsyncIterator[Any]:
    """*client*, which is stopped also where it could not start."""
    async with asyncio.timeout(DEADLINE_S):
        try:
            await client.start()
            yield client
        finally:
            await client.stop()


async def written(secured: Secured, user: str, topic: str, key: str) -> None:
    """Write an activity of *key* to *topic* as *user*."""
    made = activity(key)
    async with started(AIOKafkaProducer(**secured.client(user), acks="all")) as producer:
        await producer.send_and_wait(topic, made.value, made.key, made.partition, headers=made.headers)


async def first(secured: Secured, user: str, topic: str, group: str) -> bytes:
    """The key of the first record of *topic* that *user* reads as a member of *group*."""
    begin = {"auto_offset_reset": "earliest", "isolation_level": "read_committed"}
    async with started(AIOKafkaConsumer(topic, **secured.client(user), group_id=group, **begin)) as consumer:
        record = await consumer.getone()
        await consumer.commit()
        return bytes(record.key)


@asynccontextmanager
async def running(secured: Secured) -> AsyncIterator[str]:
    """Every part as a process of its own user, ready; yields the receiver's address."""
    async with AsyncExitStack() as stack:
        parts = [
            await stack.enter_async_context(opened(secured.settings(f"pipeline-{part}"), frozenset({part})))
            for part in NAMES
        ]
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(part.worker.run())
            for part in parts:
                await part.worker.until_ready()
            yield next(part.receiver.url for part in parts if part.receiver)
            assert {name: why for part in parts for name, why in part.worker.unready.items()} == {}
            for part in parts:
                part.worker.stop()


async def test_all_parts_and_a_subscriber_work_with_exactly_their_rights(secured: Secured) -> None:
    """A webhook becomes a contact's totals and a window's measures through them all; the team reads both."""
    async with running(secured) as url, aiohttp.ClientSession() as sender:
        async with sender.post(f"{url}/in/sakari/acme/{SECRET}", data=webhook()) as answer:
            assert answer.status == 200
        assert (await first(secured, "growth", "engagement.contacts", "growth")).startswith(b"acme:")
        assert (await first(secured, "growth", "engagement.metrics", "growth.reports")).startswith(b"acme|")


async def test_nobody_else_may_start_a_stage(secured: Secured) -> None:
    """A subscriber's user cannot even see the topics that a stage needs."""
    with pytest.raises(Exception, match="topics are missing"):
        async with opened(secured.settings("growth"), frozenset({"engagement"})):
            pass


@pytest.mark.parametrize(
    ("user", "topic"), [("growth", "engagement.contacts"), ("pipeline-engagement", "contacts.enriched")]
)
async def test_nobody_writes_what_is_not_theirs(secured: Secured, user: str, topic: str) -> None:
    """A subscriber writes nothing, a stage only its outputs."""
    with pytest.raises(TopicAuthorizationFailedError):
        await written(secured, user, topic, "acme:s:c1")


@pytest.mark.parametrize(
    ("user", "topic", "group", "error"),
    [
        ("growth", "activity.enriched", "growth", TopicAuthorizationFailedError),
        ("growth", "engagement.contacts", "pipeline.engagement", GroupAuthorizationFailedError),
        ("pipeline-engagement", "sources.received", "pipeline.engagement", TopicAuthorizationFailedError),
    ],
)
async def test_nobody_reads_what_is_not_theirs(
    secured: Secured, user: str, topic: str, group: str, error: type[Exception]
) -> None:
    """Neither another topic nor as a member of another's group."""
    with pytest.raises(error):
        await first(secured, user, topic, group)
