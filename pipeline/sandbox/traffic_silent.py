"""Changes that no webhook tells of, so that only polling finds them: location tags, profiles, users."""

from collections.abc import Iterable
from typing import Final

from pipeline.sandbox.traffic_plot import Planned, Plot
from pipeline.sandbox.world import TenantWorld, full_name, instant

__all__ = ["change_company", "change_location_tags", "change_statistics"]

_COLOURS: Final = ("#c0392b", "#8e44ad", "#16a085", "#f39c12")
#: each location tag's names in turn; only these two change, so that the dimensions stay few
_NAMES: Final = {"Newsletter": ("Newsletter", "News letter"), "VIP": ("VIP", "V.I.P.")}


def change_location_tags(plot: Plot) -> Iterable[Planned]:
    """A location tag gets another colour, description or name, or goes, or comes back under another id."""
    tenant = plot.rng.choice(list(plot.world.tenants.values()))
    drawn = plot.rng.random()
    if drawn < 0.5:
        _recolour(plot, tenant)
    elif drawn < 0.8:
        _rename(plot, tenant)
    else:
        _come_or_go(plot, tenant)
    return ()


def change_statistics(plot: Plot) -> Iterable[Planned]:
    """A social profile's figures grow, and with them the location's."""
    tenant = plot.rng.choice(list(plot.world.tenants.values()))
    location = tenant.location
    profile = plot.rng.choice(sorted(location.profile_statistics))
    likes = [plot.rng.randrange(50) for _ in range(7)]
    location.put_profile_statistics(profile, {"likes": likes})
    location.put_statistics({"posts": plot.rng.randrange(100), "followers": plot.rng.randrange(9_000)})
    return ()


def change_company(plot: Plot) -> Iterable[Planned]:
    """A user is renamed, or a social profile is."""
    tenant = plot.rng.choice(list(plot.world.tenants.values()))
    if plot.chance(0.5):
        user_id = plot.rng.choice(sorted(plot.world.users.users))
        plot.world.users.put_user(full_name(plot.rng), user_id=user_id)
    else:
        account_id = plot.rng.choice(sorted(tenant.location.accounts))
        name = f"{tenant.spec.name} number {plot.rng.randrange(100)}"
        tenant.location.put_account(name, account_id=account_id)
    return ()


def _recolour(plot: Plot, tenant: TenantWorld) -> None:
    tag_id = plot.rng.choice(sorted(tenant.location.tags))
    tag = tenant.location.tags[tag_id]
    if tag["deleted"]:
        return
    colour, at = plot.rng.choice(_COLOURS), instant(plot.now_ms)
    description = f"Reviewed {plot.rng.randrange(100)} times" if plot.chance(0.3) else None
    tenant.location.put_location_tag(tag["tag"], at=at, tag_id=tag_id, colour=colour, description=description)
    plot.recorder.location_tag(tenant, tag_id)


def _rename(plot: Plot, tenant: TenantWorld) -> None:
    original = plot.rng.choice(sorted(_NAMES))
    tag_id = tenant.location_tags[original]
    now, other = _NAMES[original]
    name = other if tenant.location.tags[tag_id]["tag"] == now else now
    tenant.location.put_location_tag(name, at=instant(plot.now_ms), tag_id=tag_id)
    plot.recorder.location_tag(tenant, tag_id)


def _come_or_go(plot: Plot, tenant: TenantWorld) -> None:
    """``Trial`` is removed, marked or without a trace, or comes back under a new id."""
    location, at = tenant.location, instant(plot.now_ms)
    tag_id = tenant.location_tags.pop("Trial", None)
    if tag_id is not None:
        location.remove_location_tag(tag_id, at=at, absent=plot.chance(0.5))
    else:
        tag_id = location.put_location_tag("Trial", at=at, colour=plot.rng.choice(_COLOURS)).id
        tenant.location_tags["Trial"] = tag_id
    plot.recorder.location_tag(tenant, tag_id)
