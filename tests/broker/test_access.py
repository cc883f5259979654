"""Exactly the rights that are exported, on a Kafka that denies all others: what works, and what does not."""

import asyncio
import os
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from pipeline.cli import cluster, main
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.broker_files import KafkaFiles, java
from pipeline.runtime.run import opened
from pipeline.settings import Settings
from tests.broker.test_readme_snippet import activity
from tests.contract import standards

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_S = 60
USERS = ("admin", "growth", "pipeline-engagement")
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
ACCOUNT = {
    "account_id": "a1",
    "client_id": {"value": "c"},
    "client_secret": {"value": "s"},
    "webhook_secrets_sha256": ["0" * 64],
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
        given: dict[str, Any] = {
            "kafka": kafka,
            "runtime": runtime,
            "admin": {"port": 0},
            "tenants": {"acme": {"sakari": [ACCOUNT]}},
        }
        given["profile"] = "dev"
        return Settings.model_validate({**given, "identity_secret": {"value": "s" * 32}})


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
    asked = ["--acls", str(secured.folder), "--subscriber", "growth=engagement.contacts"]
    assert main(["topics", "export", *asked]) == 0
    lines = (secured.folder / "acls.sh").read_text().splitlines(keepends=True)
    ours = [line for line in lines if not (user := re.search(r"User:(\S+)", line)) or user[1] in USERS]
    (secured.folder / "ours.sh").write_text("".join(ours))
    client = (
        f'security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config={PLAIN} username="admin"'
    )
    (secured.folder / "admin.properties").write_text(f'{client} password="admin";\n')
    reaching = ["--bootstrap-server", secured.servers, "--command-config", "admin.properties"]
    program = await asyncio.create_subprocess_exec(
        *("sh", "ours.sh", *reaching),
        cwd=secured.folder,
        env={**os.environ, "KAFKA_ACLS": str(kafka_acls(secured.folder))},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await program.communicate()
    assert program.returncode == 0, told.decode()


def kafka_acls(folder: Path) -> Path:
    """Kafka's ``kafka-acls.sh`` as a script of our own, beside the embedded broker's jars."""
    classes = os.pathsep.join(
        (KafkaFiles().class_path, *map(str, standards.jars(standards.HERE / "java" / "kafka-acls.lock")))
    )
    words = [str(java()), "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", classes]
    script = folder / "kafka-acls.sh"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} org.apache.kafka.tools.AclCommand "$@"\n')
    script.chmod(0o700)
    return script


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


async def test_a_stage_and_a_subscriber_work_with_exactly_their_rights(secured: Secured) -> None:
    """An activity becomes a contact's totals by a process of engagement's user, and the team reads them."""
    key = "acme:m:00112233445566778899aabbccddeeff"
    async with opened(secured.settings("pipeline-engagement"), frozenset({"engagement"})) as process:
        running = asyncio.create_task(process.worker.run())
        await written(secured, "admin", "activity.enriched", key)
        assert await first(secured, "growth", "engagement.contacts", "growth") == key.encode()
        assert not running.done()
        process.worker.stop()
        await running


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
