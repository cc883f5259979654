"""The cluster that a command line means: its settings, the topics it should hold, and looking at them."""

import logging
from pathlib import Path

from pipeline import topology
from pipeline.errors import ConfigError
from pipeline.identity import Identity
from pipeline.runtime.admin import Admin
from pipeline.runtime.connection import Connection
from pipeline.runtime.topic_plan import Plan, Wanted, wanted
from pipeline.settings import Settings, load
from pipeline.stage import Stage
from pipeline.topics import load as load_topics

__all__ = ["apply", "plan", "settings_of", "stages_of", "wanted_topics"]


def settings_of(file: Path | None, bootstrap_servers: str = "", profile: str = "") -> Settings:
    """
    The settings of *file* and the environment, with what the command line gave in their place.

    Raises:
        ConfigError: they cannot be used, or name no Kafka.
    """
    settings = load(file)
    if profile:
        settings = settings.model_copy(update={"profile": load_topics().profile(profile).name})
    if bootstrap_servers:
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": bootstrap_servers})
        settings = settings.model_copy(update={"kafka": kafka})
    if not settings.kafka.bootstrap_servers:
        raise ConfigError(
            "kafka.bootstrap_servers: missing; give --bootstrap-servers HOST:PORT, a settings file or"
            " PIPELINE_KAFKA__BOOTSTRAP_SERVERS"
        )
    return settings


def stages_of(settings: Settings) -> tuple[Stage, ...]:
    """Every stage, source and sink by shape alone: names, inputs and stores, which no secret changes."""
    return tuple(unit.stage for unit in topology.units(settings, Identity(b"")))


def wanted_topics(settings: Settings) -> tuple[Wanted, ...]:
    """All topics that the pipeline of *settings* needs, changelogs included."""
    topics = load_topics()
    profile = topics.profile(settings.profile)
    return wanted(topics, profile, settings.application_id, stages_of(settings))


async def plan(settings: Settings) -> Plan:
    """How the cluster differs from `wanted_topics`."""
    async with _admin(settings) as admin:
        return await admin.plan(wanted_topics(settings))


async def apply(settings: Settings, found: Plan) -> None:
    """Carry *found* out."""
    async with _admin(settings) as admin:
        await admin.apply(found)


def _admin(settings: Settings) -> Admin:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it has to say reaches us as errors
    return Admin(Connection(settings.kafka, settings.runtime, "pipeline-topics").common)
