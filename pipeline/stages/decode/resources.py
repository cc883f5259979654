"""
What is polled of the Users API besides contacts: location tags, accounts, users, statistics.

Each item is the whole resource. An equal one is dropped, an older one loses: order is ``updatedAt``,
else the start of the scan. A user may be listed by several locations and is gone when none lists it.
Snapshots of statistics are ordered by ``observedAt`` and recognised for as long as facts are.
"""

import hashlib
from collections.abc import Callable

import msgspec

from pipeline.errors import RecordError
from pipeline.events import LocationTag, SocialAccount, StatisticsSnapshot, User
from pipeline.instants import Time
from pipeline.stages.decode import users_wire as wire
from pipeline.stages.decode.contacts import alive_at, stamp
from pipeline.stages.decode.facts import day_of
from pipeline.stages.decode.intake import Intake
from pipeline.stages.decode.parse import as_flag, as_id, as_time, decoded, required
from pipeline.stages.decode.stores import RESOURCES, SNAPSHOTS, ResourceState, SnapshotState

__all__ = ["profiles_hash", "take"]

_TAG = msgspec.json.Decoder(wire.Tag)
_USER = msgspec.json.Decoder(wire.User)
_ACCOUNT = msgspec.json.Decoder(wire.Account)
_STATISTICS = msgspec.json.Decoder(wire.Statistics)
_ENCODER = msgspec.json.Encoder(order="deterministic")


def take(intake: Intake) -> None:
    """
    Decode a polled item.

    Raises:
        RecordError: it cannot be read, lacks what it must have, or is of an unknown resource.
    """
    reader = _READERS.get(intake.record.resource)
    if reader is None:
        raise RecordError("unknown-resource", "header resource: is none that the Users API has")
    reader(intake)


def profiles_hash(location_id: str, profile_ids: tuple[str, ...]) -> str:
    """16 hex digits for the profiles that statistics are of; without any for the location itself."""
    text = "\n".join(sorted(profile_ids)) if profile_ids else location_id
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tag(intake: Intake) -> None:
    given = decoded(_TAG, intake.record.body, "item")
    identifier = required(as_id(given._id) or as_id(given.id), "item._id")  # noqa: SLF001 - the API's name
    updated = as_time(given.updated_at, "item.updatedAt")
    deleted = bool(as_flag(given.deleted, "item.deleted"))
    value = None
    if not deleted and not _removed(intake):
        value = LocationTag(
            tenant=intake.tenant,
            location_id=as_id(given.location_id) or intake.account,
            tag_id=identifier,
            name=required(given.tag or given.name, "item.tag"),
            colour=given.colour or given.color,
            description=given.description,
            details_id=as_id(given.details_id),
            created_by=as_id(given.created_by),
            created_at=as_time(given.created_at, "item.createdAt"),
            updated_at=updated,
        )
    _settle(intake, "users.tags", identifier, value, updated)


def _user(intake: Intake) -> None:
    given = decoded(_USER, intake.record.body, "item")
    identifier = required(as_id(given.id), "item.id")
    roles = given.roles or wire.Roles()
    phone = as_id(given.phone)
    value = User(
        tenant=intake.tenant,
        user_id=identifier,
        name=given.name,
        first_name=given.first_name,
        last_name=given.last_name,
        email=given.email,
        phone=intake.mobile(phone, None) or phone,
        role=roles.role,
        type=roles.type,
        location_ids=tuple(roles.location_ids or ()),
        deleted=bool(as_flag(given.deleted, "item.deleted")),
    )
    _settle(intake, "users.users", identifier, None if _removed(intake) else value, None)


def _account(intake: Intake) -> None:
    given = decoded(_ACCOUNT, intake.record.body, "item")
    identifier = required(as_id(given.id), "item.id")
    value = SocialAccount(
        tenant=intake.tenant,
        location_id=intake.account,
        account_id=identifier,
        profile_id=as_id(given.profile_id) or as_id(given.oauth_id),
        name=given.name,
        platform=given.platform,
        type=given.type,
        expired=bool(as_flag(given.is_expired, "item.isExpired")),
    )
    gone = _removed(intake) or as_flag(given.deleted, "item.deleted")
    _settle(intake, "users.accounts", identifier, None if gone else value, None)


def _statistics(intake: Intake) -> None:
    if _removed(intake):
        return
    given = decoded(_STATISTICS, intake.record.body, "item")
    location = as_id(given.location_id) or intake.account
    profiles = tuple(sorted(given.profile_ids or ()))
    window_end = required(as_time(given.window_end, "item.windowEnd"), "item.windowEnd")
    value = StatisticsSnapshot(
        tenant=intake.tenant,
        location_id=location,
        dialect=required(given.dialect, "item.dialect"),
        profile_ids=profiles,
        profiles_hash=profiles_hash(location, profiles),
        window_start=as_time(given.window_start, "item.windowStart"),
        window_end=window_end,
        observed_at=as_time(given.observed_at, "item.observedAt") or intake.observed_at,
        statistics_id=as_id(given.statistics_id),
        metrics=bytes(given.results).decode() if given.results else "{}",
    )
    key = f"{intake.tenant}:{value.profiles_hash}:{window_end}"
    place = f"{day_of(window_end):05d}{key}"
    known: SnapshotState | None = intake.get(SNAPSHOTS, place)
    digest = _digest(value)
    if known is None or (value.observed_at >= known.observed_at and digest != known.digest):
        intake.put(SNAPSHOTS, place, SnapshotState(digest, value.observed_at))
        intake.emit("users.statistics", key, value, value.observed_at)


def _removed(intake: Intake) -> bool:
    return intake.record.change == "removed"


def _settle(
    intake: Intake, topic: str, identifier: str, value: msgspec.Struct | None, updated: Time | None
) -> None:
    """Publish *value*, None for what the record says is gone, unless newer is known."""
    key = f"{intake.tenant}:{identifier}"
    place = f"{topic}|{key}"
    state: ResourceState = intake.get(RESOURCES, place) or ResourceState()
    after = _without(state, intake, updated) if value is None else _with(state, intake, value, updated)
    if after == state:
        return
    intake.put(RESOURCES, place, after)
    if after.digest != state.digest:
        intake.emit(topic, key, value, updated)


def _with(state: ResourceState, intake: Intake, value: msgspec.Struct, updated: Time | None) -> ResourceState:
    account = intake.account
    alive = alive_at(intake, updated)
    if alive <= state.removed.get(account, ""):
        return state
    new = stamp(intake, updated)
    newest = not state.digest or new >= state.stamp
    return ResourceState(
        _digest(value) if newest else state.digest,
        new if newest else state.stamp,
        state.alive | {account: max(alive, state.alive.get(account, ""))},
        {name: at for name, at in state.removed.items() if name != account},
    )


def _without(state: ResourceState, intake: Intake, updated: Time | None) -> ResourceState:
    account = intake.account
    removed_at = intake.observed_at if _removed(intake) else alive_at(intake, updated)
    if state.alive.get(account, "") > removed_at or state.removed.get(account, "") >= removed_at:
        return state
    alive = {name: at for name, at in state.alive.items() if name != account}
    digest = state.digest if alive else ""
    return ResourceState(digest, state.stamp, alive, state.removed | {account: removed_at})


def _digest(value: msgspec.Struct) -> str:
    return hashlib.sha256(_ENCODER.encode(value)).hexdigest()[:32]


_READERS: dict[str, Callable[[Intake], None]] = {
    "tags": _tag,
    "users": _user,
    "accounts": _account,
    "statistics": _statistics,
}
