"""
START HERE: the whole pipeline as one tuple of values, in the order of the flow.

Sources bring the world in as records, stages are pure functions from records to records, sinks act on
the world. Printed, a topology shows who reads and writes which topic.
"""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.clients.users import UsersClient
from pipeline.effects import Unit
from pipeline.identity import Identity
from pipeline.settings import Settings, SourceSettings
from pipeline.sinks import statistics
from pipeline.sources import clock, poller
from pipeline.sources.scan import Resource
from pipeline.stage import Stage
from pipeline.stages import broadcast, decode, engagement, enrich, rollup

__all__ = ["printed", "stages", "units"]


def stages(settings: Settings, identity: Identity) -> tuple[Stage, ...]:
    """The pure stages, from raw records to window metrics."""
    zones = {name: tenant.zone for name, tenant in settings.tenants.items()}
    grace_s = settings.engagement.grace_s
    return (
        decode.stage(_decode_config(settings, identity)),
        broadcast.STAGE,
        enrich.STAGE,
        engagement.stage(
            zones=zones,
            grace_s=grace_s,
            reply_window_s=settings.engagement.reply_window_s,
            max_tags=settings.engagement.max_tags,
            seen_days=settings.decode.seen_days,
        ),
        rollup.stage(grace_s=grace_s, zones=zones),
    )


def units(
    settings: Settings,
    identity: Identity,
    resources: Sequence[Resource] = (),
    clients: Mapping[str, UsersClient] | None = None,
) -> tuple[Unit, ...]:
    """
    Everything that runs as tasks; the receiver runs beside it as a service.

    *clients* are by location id. Without resources and clients it is the same topology, but idle.
    """
    return (
        clock.unit(settings.clock.interval_s),
        poller.unit(resources, settings.poll.max_pages),
        *(Unit(stage=stage) for stage in stages(settings, identity)),
        statistics.unit(
            tenants=settings.tenants,
            clients=clients or {},
            settings=settings.sink,
            breaker=settings.breaker,
        ),
    )


def printed(made: Iterable[Unit]) -> str:
    """The topology as aligned lines: name, inputs, outputs."""
    rows = [(unit.stage.name, unit.stage.inputs if unit.reads else (), unit.stage.outputs) for unit in made]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(
        f"{name:<{width}}  {', '.join(inputs) or '(outside)'} -> {', '.join(outputs) or '(outside)'}"
        for name, inputs, outputs in rows
    )


def _decode_config(settings: Settings, identity: Identity) -> decode.Config:
    return decode.Config(
        identity=identity,
        tenants={
            name: decode.TenantConfig(
                region=tenant.region,
                accept_unverified=tenant.accept_unverified,
                accounts=frozenset(account.account_id for account in tenant.sakari),
                locations=frozenset(location.location_id for location in tenant.users),
            )
            for name, tenant in settings.tenants.items()
        },
        sources={name: _source_config(source) for name, source in settings.sources.items()},
        seen_days=settings.decode.seen_days,
    )


def _source_config(source: SourceSettings) -> decode.SourceConfig:
    return decode.SourceConfig(
        type_path=source.type_path,
        id_path=source.id_path,
        time_path=source.time_path,
        phone_path=source.phone_path,
        country_path=source.country_path,
    )
