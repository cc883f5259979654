"""
The customers of the sandbox as they stand when the traffic begins: accounts, locations, tags, people.

The same seed, tenants and start give the same world. A `Person` is whoever is behind a mobile number: a
contact of Sakari, of the Users API, or of both.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Final

from pipeline.errors import ConfigError
from pipeline.sandbox.sakari_state import SakariAccount
from pipeline.sandbox.state import Change, Json, SandboxState
from pipeline.sandbox.traffic_time import DAY_MS, ERA_SPAN_MS, HORIZON_MS, Era, boundary_ms, era_start_ms
from pipeline.sandbox.users_state import UsersLocation, UsersState

__all__ = [
    "DEFAULT_TENANTS",
    "LOCATION_TAGS",
    "Numbers",
    "Person",
    "TenantSpec",
    "TenantWorld",
    "World",
    "add_person",
    "build_world",
    "full_name",
    "instant",
    "sakari_tags",
    "tenant_specs",
    "users_phone",
    "users_tags",
    "wire_tags",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSpec:
    """One customer, as the settings of the pipeline must have it too."""

    name: str
    time_zone: str = "UTC"
    region: str = "US"
    dialect: str = "catalogue"
    countries: tuple[str, ...] = ("US", "CA")
    own_numbers: tuple[str, ...] = ("+12025550100",)  #: E.164, all in ``region``


DEFAULT_TENANTS: Final = (
    TenantSpec(name="acme", own_numbers=("+12025550100", "+12125550100")),
    TenantSpec(
        name="bolt",
        time_zone="Europe/Berlin",
        region="DE",
        countries=("DE", "US"),
        own_numbers=("+491713920099",),
    ),
    TenantSpec(
        name="cedar", time_zone="America/St_Johns", region="CA", dialect="vendor", countries=("CA", "DE")
    ),
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: zones of further tenants, in turn
_ZONES: Final = ("Asia/Kolkata", "UTC", "Pacific/Auckland", "America/Sao_Paulo")
#: name, colour, description
LOCATION_TAGS: Final = (
    ("VIP", "#c0392b", "Answers within the hour"),
    ("Newsletter", "#2980b9", None),
    ("Spätkauf", "#27ae60", "Buys in the evening"),
    ("Trial", None, None),
)
#: as people type them; "walk-in" is no location tag
_SAKARI_TAGS: Final = ("vip", "Newsletter", "SPÄTKAUF", "walk-in")
_USERS_TAGS: Final = ("VIP", "newsletter ", "trial", "Walk-In")
_PEOPLE: Final = 130  #: a tenant
#: how many in a hundred live in the past
_ERAS: Final = ((Era.RECENT, 5), (Era.CLOSING, 7), (Era.OLD, 4))
_FIRST_NAMES: Final = ("Ada", "Ben", "Chloé", "Dmitri", "Ewa", "Farid", "Grace", "Hiro", "Inês", "Jörg")
_LAST_NAMES: Final = ("Example", "Muster", "O'Neil", "Sample", "Şahin", "Test")


@dataclass(slots=True, kw_only=True)
class Person:
    """Somebody with contacts on one or both systems, and a clock of their own that only goes forward."""

    sakari_id: str | None
    users_id: str | None
    era: Era = Era.NOW
    offset_ms: int = 0  #: how far their clock is behind the traffic's
    clock_ms: int = 0  #: the last instant anything of theirs happened at
    users_clock_ms: int = 0  #: likewise at the Users API, whose webhooks must be recent
    busy_until_ms: int = 0  #: until when (traffic's clock) something of theirs is on its way
    untimed: bool = (
        False  #: their opt changes carry no time, are told in order, and are all the opts they have
    )
    opted_out: bool = False
    conversations: list[str] = field(default_factory=list)  #: open ones

    def next_at(self, now_ms: int, start_ms: int) -> datetime:
        """A fresh instant of this person's clock, the traffic's standing at *now_ms*."""
        if now_ms - start_ms > ERA_SPAN_MS:
            self.offset_ms = 0
        self.clock_ms = max(now_ms - self.offset_ms, self.clock_ms + 1)
        return instant(self.clock_ms)

    def next_users_at(self, now_ms: int) -> datetime:
        """A fresh instant at the Users API, the traffic's clock standing at *now_ms*."""
        self.users_clock_ms = max(now_ms, self.users_clock_ms + 1)
        return instant(self.users_clock_ms)


@dataclass(slots=True, kw_only=True)
class TenantWorld:
    """One customer with everything of theirs."""

    spec: TenantSpec
    account: SakariAccount
    location: UsersLocation
    numbers: "Numbers"
    people: list[Person] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)
    campaigns: list[str] = field(default_factory=list)
    location_tags: dict[str, str] = field(default_factory=dict)  #: original name -> tag id


@dataclass(slots=True, kw_only=True)
class World:
    """All customers; *start_ms* and *boundary* are what their times are reckoned from."""

    start_ms: int
    boundary_ms: int
    users: UsersState
    tenants: dict[str, TenantWorld]


class Numbers:
    """
    Mobile numbers set aside for fiction, each once, as people write them.

    North America's 555-0100 to 555-0199 of every area code, and the Bundesnetzagentur's for dramas.
    """

    def __init__(self, spec: TenantSpec) -> None:
        american = ("201", "202", "203", "205", "206", "207", "208", "209", "210", "212", "213", "214")
        canadian = ("204", "226", "236", "249", "250", "289", "306", "343", "365", "403", "416", "418")
        german = ("171-392-00", "176-040-690")
        self._free: dict[str, Iterator[str]] = {
            "US": (
                f"{area}-555-01{n:02d}"
                for n in range(100)
                for area in american
                if n or area not in ("202", "212")
            ),
            "CA": (f"{area}-555-01{n:02d}" for n in range(100) for area in canadian),
            "DE": (f"{block}{n:02d}" for n in range(99) for block in german),
        }
        self._countries = spec.countries

    def draw(self, rng: random.Random) -> Json | None:
        """``{number, country}`` in a national format, of one of the tenant's countries; None: all used up."""
        for country in rng.sample(self._countries, len(self._countries)):
            if number := next(self._free[country], None):
                return {"number": number, "country": country}
        return None


def instant(ms: int) -> datetime:
    """The aware instant *ms* after 1970."""
    return _EPOCH + timedelta(milliseconds=ms)


def tenant_specs(names: Iterable[str]) -> tuple[TenantSpec, ...]:
    """
    The sample's customers called *names*; further ones than the default three get zones in turn.

    Raises:
        ConfigError: a name is given twice, or none is.
    """
    known = {spec.name: spec for spec in DEFAULT_TENANTS}
    wanted = list(names)
    if not wanted or len(set(wanted)) < len(wanted):
        raise ConfigError("tenants: name at least one, each once")
    zones = cycle(_ZONES)
    return tuple(known.get(name) or TenantSpec(name=name, time_zone=next(zones)) for name in wanted)


def build_world(
    state: SandboxState, *, seed: int, specs: Iterable[TenantSpec], start_ms: int, boundary: int | None = None
) -> World:
    """Fill *state* with customers whose traffic begins at *start_ms* (ms since 1970)."""
    closing = boundary_ms(start_ms) if boundary is None else boundary
    world = World(start_ms=start_ms, boundary_ms=closing, users=state.users, tenants={})
    for spec in specs:
        rng = random.Random(f"world {seed} {spec.name}")
        world.tenants[spec.name] = _tenant(state, spec, world, rng)
    _company(state)
    return world


def sakari_tags(rng: random.Random) -> list[str]:
    """Names of tags as people type them at Sakari, none to three."""
    return rng.sample(_SAKARI_TAGS, rng.choices((0, 1, 2, 3), (2, 5, 3, 1))[0])


def users_tags(rng: random.Random, tag_ids: Iterable[str] = ()) -> list[str]:
    """Names of contact tags at the Users API, none to three; now and then one of *tag_ids* instead."""
    names = rng.sample(_USERS_TAGS, rng.choices((0, 1, 2, 3), (2, 5, 3, 1))[0])
    ids = list(tag_ids)
    return [rng.choice(ids), *names[1:]] if names and ids and rng.random() < 0.05 else names


def full_name(rng: random.Random) -> Json:
    """A made-up ``{firstName, lastName, email}``."""
    first, last = rng.choice(_FIRST_NAMES), rng.choice(_LAST_NAMES)
    return {"firstName": first, "lastName": last, "email": f"person{rng.randrange(10**6)}@example.com"}


def _tenant(state: SandboxState, spec: TenantSpec, world: World, rng: random.Random) -> TenantWorld:
    first, *others = spec.own_numbers
    account = state.sakari.add_account(name=spec.name, country=spec.region, number=first)
    for number in others:
        account.add_number(number, spec.region)
    location = state.users.add_location(spec.name)
    tenant = TenantWorld(spec=spec, account=account, location=location, numbers=Numbers(spec))
    made_at = instant(world.start_ms - HORIZON_MS - 2 * DAY_MS)
    for name, colour, description in LOCATION_TAGS:
        tag = location.put_location_tag(name, at=made_at, colour=colour, description=description)
        tenant.location_tags[name] = tag.id
    for name in ("Welcome", "Spring sale"):
        text = f"{name}, {{{{{{firstName}}}}}}!"
        template = account.put_template({"name": name, "template": text, "type": "text"})
        tenant.templates.append(template.id)
        campaign = {"name": name, "template": template.id, "trigger": {"code": "M"}}
        tenant.campaigns.append(account.put_campaign(campaign).id)
    for platform in ("facebook", "instagram"):
        location.put_account(f"{spec.name} on {platform}", platform)
    location.put_statistics({"posts": 3, "followers": 120})
    _people(tenant, world, rng)
    return tenant


def _people(tenant: TenantWorld, world: World, rng: random.Random) -> None:
    eras = [era for era, share in _ERAS for _ in range(round(_PEOPLE * share / 100))]
    eras += [Era.NOW] * (_PEOPLE - len(eras))
    rng.shuffle(eras)
    born_ms = world.start_ms - HORIZON_MS - DAY_MS
    for index in range(_PEOPLE):
        era = eras[index]
        person, _ = add_person(tenant, rng, at_ms=born_ms + index, users_only=index % 11 == 10)
        person.era = era
        person.offset_ms = world.start_ms - era_start_ms(era, world.start_ms, world.boundary_ms, rng)
        person.untimed = era is Era.NOW and index % 9 == 3
        tenant.people.append(person)
    for twin in rng.sample([person for person in tenant.people if person.sakari_id], 2):
        assert twin.sakari_id is not None
        mobile = tenant.account.contact(twin.sakari_id).get("mobile")
        fields = {**full_name(rng), "mobile": mobile, "tags": wire_tags(sakari_tags(rng))}
        change = tenant.account.put_contact(fields, at=instant(born_ms))
        tenant.people.append(Person(sakari_id=change.id, users_id=None, clock_ms=born_ms))


def add_person(
    tenant: TenantWorld, rng: random.Random, *, at_ms: int, users_only: bool = False
) -> tuple[Person, list[Change]]:
    """Create somebody's contacts at *at_ms*; not yet among the tenant's people."""
    changes: list[Change] = []
    names, mobile = full_name(rng), _mobile(tenant, rng)
    person = Person(sakari_id=None, users_id=None, clock_ms=at_ms)
    if not users_only:
        fields = {**names, **({"mobile": mobile} if mobile else {}), "tags": wire_tags(sakari_tags(rng))}
        changes.append(tenant.account.put_contact(fields, at=instant(at_ms)))
        person.sakari_id = changes[-1].id
    if users_only or rng.random() < 0.7:
        phone = users_phone(mobile, rng) if mobile else {}
        tags = users_tags(rng, tenant.location_tags.values())
        changes.append(tenant.location.put_contact({**names, **phone, "tags": tags}, at=instant(at_ms)))
        person.users_id = changes[-1].id
    return person, changes


def users_phone(mobile: Json, rng: random.Random) -> Json:
    """The same mobile as the Users API holds it: mostly in E.164, else as it was typed, with its country."""
    code = {"US": "+1", "CA": "+1", "DE": "+49"}[mobile["country"]]
    international = code + mobile["number"].replace("-", "")
    number = international if rng.random() < 0.8 else mobile["number"]
    return {"phone": number, "country": mobile["country"]}


def wire_tags(names: Iterable[str]) -> list[Json]:
    """Tags as a Sakari contact carries them."""
    return [{"tag": name, "visible": True} for name in names]


def _mobile(tenant: TenantWorld, rng: random.Random) -> Json | None:
    drawn = rng.random()
    if drawn < 0.05:
        return None
    return {"number": "555-0100", "country": "US"} if drawn < 0.07 else tenant.numbers.draw(rng)


def _company(state: SandboxState) -> None:
    locations = list(state.users.locations)
    for first, last in (("Uma", "Owner"), ("Ulf", "Helper")):
        fields = {"firstName": first, "lastName": last, "email": f"{first.lower()}@example.com"}
        state.users.put_user({**fields, "type": "account", "role": "admin", "locationIds": locations})
