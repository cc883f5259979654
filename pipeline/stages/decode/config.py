"""What the decode stage is told: plain values, made from the settings."""

from collections.abc import Mapping

import msgspec

from pipeline.identity import Identity

__all__ = ["Config", "SourceConfig", "TenantConfig"]


class TenantConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant: what belongs to it, and how its numbers and webhooks are read."""

    region: str = "US"  #: ISO 3166 alpha-2; how numbers without a country are dialled
    accept_unverified: bool = False  #: unsigned Users API webhooks pass, but change no contact
    accounts: frozenset[str] = frozenset()  #: Sakari account ids
    locations: frozenset[str] = frozenset()  #: Users API location ids


class SourceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where a configured product's JSON carries what; dotted paths, empty where it carries nothing."""

    type_path: str = "type"
    id_path: str = "id"
    time_path: str = ""  #: empty: the time of arrival
    phone_path: str = ""
    country_path: str = ""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All that the decode stage is told."""

    identity: Identity
    tenants: Mapping[str, TenantConfig]
    sources: Mapping[str, SourceConfig] = {}
    seen_days: int = 45  #: days for which facts are recognised as seen
