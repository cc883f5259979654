"""The Users API's data: a company with users, and locations with tags, contacts, profiles and statistics."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pipeline.sandbox.ids import Ids, from_wire_time, wire_time
from pipeline.sandbox.state_types import Change, Hook, Json, Missing, found

__all__ = ["SCOPES", "Grant", "Submission", "UsersLocation", "UsersState"]

#: every scope that an operation of the sandbox asks for (FACTS §2)
SCOPES: Final = (
    "socialplanner/tag.readonly",
    "socialplanner/statistics.readonly",
    "socialplanner/account.readonly",
    "users.readonly",
    "users.write",
    "contacts.readonly",
    "contacts.write",
    "locations/tags.readonly",
    "locations/tags.write",
    "locations/customValues.readonly",
    "locations/customValues.write",
    "locations/customFields.readonly",
    "locations/customFields.write",
    "oauth.write",
    "oauth.readonly",
)
#: the contact fields a webhook carries (``ContactCreate`` of the vendor's event schemas): no dateUpdated
_WEBHOOK_FIELDS: Final = (
    "id",
    "address1",
    "city",
    "companyName",
    "country",
    "source",
    "dateAdded",
    "dateOfBirth",
    "dnd",
    "email",
    "name",
    "firstName",
    "lastName",
    "phone",
    "postalCode",
    "state",
    "tags",
    "website",
    "attachments",
    "assignedTo",
    "customFields",
)


@dataclass(frozen=True, slots=True)
class Submission:
    """A statistic posted in the catalogue dialect: the newest body under its id, and how often it came."""

    body: Json
    at: datetime
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a bearer may do: a whole company, or one location of it."""

    company_id: str
    location_id: str | None = None
    scopes: frozenset[str] = frozenset(SCOPES)


@dataclass(slots=True, kw_only=True)
class UsersLocation:
    """One location (sub-account); dictionaries are by native id, in order of creation."""

    id: str
    name: str
    company_id: str
    app_id: str
    ids: Ids
    tags: dict[str, Json] = field(default_factory=dict)
    details: dict[str, Json] = field(default_factory=dict)
    accounts: dict[str, Json] = field(default_factory=dict)
    contacts: dict[str, Json] = field(default_factory=dict)
    catalogue: dict[str, Json] = field(default_factory=dict)
    custom_values: dict[str, Json] = field(default_factory=dict)
    custom_fields: dict[str, Json] = field(default_factory=dict)
    profile_statistics: dict[str, Json] = field(default_factory=dict)
    submissions: dict[str, Submission] = field(default_factory=dict)
    own_statistics: Json | None = None

    # -- social-planner tags -----------------------------------------------------------------------

    def put_location_tag(
        self,
        name: str,
        *,
        at: datetime,
        tag_id: str | None = None,
        colour: str | None = None,
        description: str | None = None,
    ) -> Change:
        """
        Create or change a social-planner tag; what is not given stays. Nothing is sent: tags are polled.

        Only the tag-details answer carries ``color``, ``description`` and ``detailsId``.
        """
        known = self.tags.get(tag_id or "")
        identity = tag_id or self.ids.hexadecimal()
        tag = {"_id": identity, "locationId": self.id, "createdBy": self.id}
        tag |= {"createdAt": (known or {}).get("createdAt", wire_time(at)), "updatedAt": wire_time(at)}
        self.tags[identity] = {**tag, "tag": name, "deleted": False}
        given = {"color": colour, "description": description}
        detail = self.details.get(identity) or {"detailsId": self.ids.hexadecimal()}
        self.details[identity] = {**detail, **{k: v for k, v in given.items() if v is not None}}
        return Change(self.tags[identity])

    def remove_location_tag(self, tag_id: str, *, at: datetime, absent: bool = False) -> Change:
        """Mark a social-planner tag ``deleted``, or with *absent* let it vanish from every answer."""
        known = found(self.tags, "tag", tag_id)
        gone = {**known, "deleted": True, "updatedAt": wire_time(at)}
        self.tags[tag_id] = gone
        if absent:
            del self.tags[tag_id], self.details[tag_id]
        return Change(gone)

    def tag_details(self, tag_id: str) -> Json | None:
        """The tag with its details, as ``tags/details`` answers it; None where there is no such tag."""
        tag = self.tags.get(tag_id)
        return {**tag, **self.details[tag_id]} if tag else None

    # -- contacts ----------------------------------------------------------------------------------

    def put_contact(self, fields: Json, *, at: datetime, contact_id: str | None = None) -> Change:
        """
        Create a contact, or merge *fields* (wire names: firstName, lastName, email, phone, country, tags,
        dnd, dndSettings, customFields …) into the one with *contact_id*.

        Sends ContactCreate or ContactUpdate; on an update also ContactTagUpdate and ContactDndUpdate where
        those changed.
        """
        known = self.contacts.get(contact_id or "")
        at = _after(known, at)
        identity = contact_id or self.ids.alphanumeric()
        contact = {"tags": [], "dnd": False, "customFields": [], **(known or {}), **fields}
        contact |= {"id": identity, "locationId": self.id, "dateUpdated": wire_time(at)}
        contact |= {"dateAdded": (known or {}).get("dateAdded", wire_time(at)), **_names(contact)}
        self._store_contact(contact)
        if known is None:
            return Change(contact, (self._contact_hook("ContactCreate", contact, at),))
        return Change(contact, tuple(self._contact_hook(k, contact, at) for k in _kinds(known, contact)))

    def set_contact_tags(self, contact_id: str, tags: Iterable[str], *, at: datetime) -> Change:
        """Replace a contact's tags; sends ContactTagUpdate with the whole resulting list."""
        known = self.contact(contact_id)
        at = _after(known, at)
        contact = {**known, "tags": list(tags), "dateUpdated": wire_time(at)}
        self._store_contact(contact)
        return Change(contact, (self._contact_hook("ContactTagUpdate", contact, at),))

    def set_dnd(self, contact_id: str, *, dnd: bool, at: datetime, channel: str = "SMS") -> Change:
        """Switch do-not-disturb of one *channel* and of the contact; sends ContactDndUpdate."""
        known = self.contact(contact_id)
        at = _after(known, at)
        setting = {"status": "active" if dnd else "inactive", "message": "", "code": ""}
        settings = {**known.get("dndSettings", {}), channel: setting}
        contact = {**known, "dnd": dnd, "dndSettings": settings, "dateUpdated": wire_time(at)}
        self._store_contact(contact)
        return Change(contact, (self._contact_hook("ContactDndUpdate", contact, at),))

    def set_custom_fields(self, contact_id: str, values: Iterable[Json], *, at: datetime) -> Change:
        """Set a contact's custom fields from ``{id|key, field_value|value}``; sends ContactUpdate."""
        merged = self.merged_fields(self.contact(contact_id), values)
        return self.put_contact({"customFields": merged}, at=at, contact_id=contact_id)

    def merged_fields(self, contact: Json, values: Iterable[Json]) -> list[Json]:
        """
        A contact's custom fields with *values* in place of its former ones, as ``{id, value}``.

        Raises:
            Missing: a key is no custom field of the location.
        """
        fields = {entry["id"]: entry for entry in contact.get("customFields", [])}
        for value in values:
            identity = value.get("id") or self._field_with_key(value.get("key", ""))
            fields[identity] = {"id": identity, "value": value.get("field_value", value.get("value"))}
        return list(fields.values())

    def remove_contact(self, contact_id: str, *, at: datetime) -> Change:
        """Remove a contact; sends ContactDelete with the contact as it was."""
        contact = self.contact(contact_id)
        at = _after(contact, at)
        del self.contacts[contact_id]
        return Change(contact, (self._contact_hook("ContactDelete", contact, at),))

    def add_message(self, contact_id: str, *, inbound: bool, text: str, at: datetime) -> Change:
        """An SMS on this side; sends InboundMessage or OutboundMessage, which carry no phone number."""
        kind = "InboundMessage" if inbound else "OutboundMessage"
        message = {
            "id": self.ids.alphanumeric(),
            "contactId": self.contact(contact_id)["id"],
            "conversationId": f"conversation-{contact_id}"[:20],
            "body": text,
            "direction": "inbound" if inbound else "outbound",
            "messageType": "SMS",
            "contentType": "text/plain",
            "status": "delivered",
            "attachments": [],
            "dateAdded": wire_time(at),
        }
        told = {"messageId" if name == "id" else name: value for name, value in message.items()}
        return Change(message, (self._hook(kind, contact_id, told, at),))

    def contact(self, contact_id: str) -> Json:
        """
        The contact as it is now.

        Raises:
            Missing: there is none, or it was removed.
        """
        return found(self.contacts, "contact", contact_id)

    def _store_contact(self, contact: Json) -> None:
        """Keep *contact*; a tag name new to the location joins its catalogue, as at the vendor."""
        self.contacts[contact["id"]] = contact
        known = {tag["name"] for tag in self.catalogue.values()}
        for name in contact["tags"]:
            if name not in known:
                self.put_catalogue_tag(name)

    def _field_with_key(self, key: str) -> str:
        for identity, definition in self.custom_fields.items():
            if key in (definition["fieldKey"], definition["fieldKey"].removeprefix("contact.")):
                return identity
        raise Missing("custom field", key)

    # -- catalogue of contact tags, custom values, custom fields ---------------------------------------

    def put_catalogue_tag(self, name: str, *, tag_id: str | None = None) -> Change:
        """Create or rename a tag of the location's catalogue of contact tags."""
        return self._put(self.catalogue, {"name": name}, tag_id or self.ids.alphanumeric())

    def put_custom_value(self, name: str, value: str, *, value_id: str | None = None) -> Change:
        """Create or change a custom value; ``fieldKey`` follows from its first name."""
        identity = value_id or self.ids.alphanumeric()
        key = f"{{{{ custom_values.{_slug(name)} }}}}"
        fields = {"fieldKey": key, **self.custom_values.get(identity, {}), "name": name, "value": value}
        return self._put(self.custom_values, fields, identity)

    def put_custom_field(self, fields: Json, *, field_id: str | None = None) -> Change:
        """Create or change a custom field (name, dataType, placeholder, position, model)."""
        identity = field_id or self.ids.alphanumeric()
        model = fields.get("model", "contact")
        default: Json = {"dataType": "TEXT", "position": 0, "model": model, "placeholder": ""}
        key = {"fieldKey": f"{model}.{_slug(fields['name'])}"}
        known = self.custom_fields.get(identity, key)
        return self._put(self.custom_fields, {**default, **known, **fields}, identity)

    def _put(self, into: dict[str, Json], fields: Json, identity: str) -> Change:
        into[identity] = {**fields, "id": identity, "locationId": self.id}
        return Change(into[identity])

    # -- profiles and statistics -------------------------------------------------------------------

    def put_account(self, name: str, platform: str = "facebook", *, account_id: str | None = None) -> Change:
        """Connect or change a social profile; ``profileId`` is what the vendor's statistics query takes."""
        identity = account_id or f"{self.ids.alphanumeric()}_{self.id}_{self.ids.number(10**12)}"
        profile = identity.partition("_")[0]
        fields: Json = {"oauthId": profile, "profileId": profile, "name": name, "platform": platform}
        fields |= {"type": "page", "expire": "2099-01-01T00:00:00.000Z", "isExpired": False, "meta": {}}
        self.accounts[identity] = {"id": identity, **fields}
        figures = {key: [self.ids.number(50) for _ in range(7)] for key in ("posts", "likes", "comments")}
        figures["impressions"] = [self.ids.number(5_000) for _ in range(7)]
        self.profile_statistics.setdefault(profile, {"followers": self.ids.number(9_000), **figures})
        return Change(self.accounts[identity])

    def put_profile_statistics(self, profile_id: str, figures: Json) -> Json:
        """Merge *figures* (posts, likes, comments, impressions: 7 daily numbers; followers: one number)."""
        self.profile_statistics[profile_id] = {**self.profile_statistics[profile_id], **figures}
        return self.profile_statistics[profile_id]

    def put_statistics(self, metrics: Json, *, statistics_id: str | None = None) -> Json:
        """What ``GET /socialplanner/statistics.readonly`` answers until something is submitted."""
        identity = statistics_id or (self.own_statistics or {}).get("statisticsId") or self.ids.hexadecimal()
        self.own_statistics = {"statisticsId": identity, "locationId": self.id, "metrics": metrics}
        return self.own_statistics

    def submit_statistics(self, body: Json, *, at: datetime) -> Submission:
        """Keep a statistic of the catalogue dialect under its ``statisticsId``; a repeat replaces it."""
        known = self.submissions.get(body["statisticsId"])
        submission = Submission(body, at, known.times + 1 if known else 1)
        self.submissions[body["statisticsId"]] = submission
        return submission

    # -- webhooks ----------------------------------------------------------------------------------

    def _contact_hook(self, kind: str, contact: Json, at: datetime) -> Hook:
        names = (*_WEBHOOK_FIELDS, "dndSettings") if kind == "ContactDndUpdate" else _WEBHOOK_FIELDS
        fields = {name: contact[name] for name in names if name in contact}
        return self._hook(kind, contact["id"], fields, at)

    def _hook(self, kind: str, subject: str, fields: Json, at: datetime) -> Hook:
        head = {"type": kind, "timestamp": wire_time(at), "webhookId": self.ids.uuid()}
        head |= {"appId": self.app_id, "versionId": self.app_id, "locationId": self.id}
        return Hook(
            product="users", owner=self.id, kind=kind, subject=subject, at=at, body={**head, **fields}
        )


@dataclass(slots=True)
class UsersState:
    """One company (agency) with its locations, users and credentials."""

    ids: Ids
    company_id: str = ""
    app_id: str = ""
    client_id: str = ""
    client_secret: str = ""
    locations: dict[str, UsersLocation] = field(default_factory=dict)
    users: dict[str, Json] = field(default_factory=dict)
    static_tokens: dict[str, Grant] = field(default_factory=dict)
    codes: dict[str, Grant] = field(default_factory=dict)
    callback_urls: list[str] = field(default_factory=list)  #: of the app: every webhook goes to each

    def __post_init__(self) -> None:
        self.company_id = self.ids.alphanumeric()
        self.app_id = self.ids.hexadecimal()
        self.client_id = f"{self.app_id}-sandbox"
        self.client_secret = self.ids.secret()

    def add_location(self, name: str) -> UsersLocation:
        """Open a location of the company."""
        identity = self.ids.alphanumeric()
        ids = Ids(f"{self.ids.secret()} {name}")
        head = {"company_id": self.company_id, "app_id": self.app_id, "ids": ids}
        self.locations[identity] = UsersLocation(id=identity, name=name, **head)  # type: ignore[arg-type]
        return self.locations[identity]

    def location(self, location_id: str) -> UsersLocation:
        """
        The location with this id.

        Raises:
            Missing: there is none.
        """
        return found(self.locations, "location", location_id)

    def location_of_contact(self, contact_id: str) -> UsersLocation:
        """
        The location that has the contact.

        Raises:
            Missing: none has.
        """
        for location in self.locations.values():
            if contact_id in location.contacts:
                return location
        raise Missing("contact", contact_id)

    def add_static_token(self, location_id: str | None = None, scopes: Iterable[str] = SCOPES) -> str:
        """A Private Integration Token for one location, or without one for the whole company."""
        token = f"pit-{self.ids.uuid()}"
        self.static_tokens[token] = self.grant(location_id, scopes)
        return token

    def add_code(self, location_id: str | None = None, scopes: Iterable[str] = SCOPES) -> str:
        """An authorization code, good for one exchange at ``POST /oauth/token``."""
        code = self.ids.secret()
        self.codes[code] = self.grant(location_id, scopes)
        return code

    def grant(self, location_id: str | None, scopes: Iterable[str] = SCOPES) -> Grant:
        """What a token for this location (None: the company) with these scopes may do."""
        return Grant(company_id=self.company_id, location_id=location_id, scopes=frozenset(scopes))

    def put_user(self, fields: Json, *, user_id: str | None = None) -> Change:
        """
        Create a user, or merge *fields* (firstName, lastName, email, phone, type, role, locationIds) into
        one. Users have no timestamps and send nothing: they are polled.
        """
        identity = user_id or self.ids.alphanumeric()
        known = self.users.get(identity, {"roles": {"type": "account", "role": "user", "locationIds": []}})
        roles = {name: fields[name] for name in ("type", "role", "locationIds") if name in fields}
        hidden = ("type", "role", "locationIds", "password", "companyId", "scopes", "scopesAssignedToOnly")
        shown = {name: value for name, value in fields.items() if name not in hidden}
        user = {**known, **shown, "id": identity, "roles": {**known["roles"], **roles}}
        self.users[identity] = {**user, **_names(user)}
        return Change(self.users[identity])

    def remove_user(self, user_id: str) -> Change:
        """
        Remove a user.

        Raises:
            Missing: there is none.
        """
        user = found(self.users, "user", user_id)
        del self.users[user_id]
        return Change(user)


def _after(known: Json | None, at: datetime) -> datetime:
    """*at*, or just after the contact's last update where that is later: dateUpdated only goes forward."""
    if known is None:
        return at
    return max(at, from_wire_time(known["dateUpdated"]) + timedelta(milliseconds=1))


def _names(person: Json) -> Json:
    parts = (person.get("firstName"), person.get("lastName"))
    return {"name": " ".join(part for part in parts if part)} if any(parts) else {}


def _kinds(before: Json, after: Json) -> tuple[str, ...]:
    tags = ("ContactTagUpdate",) if before["tags"] != after["tags"] else ()
    dnd = ("ContactDndUpdate",) if before["dnd"] != after["dnd"] else ()
    return ("ContactUpdate", *tags, *dnd)


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower())
