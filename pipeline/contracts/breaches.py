"""What breaks a promise: the rules of a contract, and what each would allow instead."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

__all__ = ["ALLOWED", "Breach", "Rule", "gathered"]


class Rule(StrEnum):
    """Why a change is none that readers can live with."""

    REMOVED = "removed"
    RENAMED = "renamed"
    RETYPED = "retyped"
    NARROWED = "narrowed"
    WIDENED = "widened"
    MADE_REQUIRED = "made-required"
    ADDED_REQUIRED = "added-required"
    REUSED = "reused"
    DEFAULT_CHANGED = "default-changed"
    UNIT_CHANGED = "unit-changed"
    VALUE_REMOVED = "value-removed"
    CLOSED = "closed"
    TYPE_REMOVED = "type-removed"
    TOPIC_REMOVED = "topic-removed"
    TOPIC_REUSED = "topic-reused"
    KEY_CHANGED = "key-changed"
    PARTITIONING_CHANGED = "partitioning-changed"
    CLEANUP_CHANGED = "cleanup-changed"
    RETENTION_SHORTENED = "retention-shortened"
    END_ADVANCED = "end-advanced"
    VISIBILITY_REDUCED = "visibility-reduced"
    MAJOR_IN_PLACE = "major-in-place"


_NEW_MAJOR = "a new major version of the type, on a new topic, both written for one retention period"
_NEW_TOPIC = "a new topic beside it, both written for one retention period"

#: Rule -> what would be allowed instead.
ALLOWED = {
    Rule.REMOVED: f"keep the field and go on writing it; or {_NEW_MAJOR}",
    Rule.RENAMED: "keep the field, and add the new name with a default beside it; write both",
    Rule.RETYPED: f"keep the field, and add another one with a default for the new type; or {_NEW_MAJOR}",
    Rule.NARROWED: f"go on reading what was once valid, and check where it is used; or {_NEW_MAJOR}",
    Rule.WIDENED: f"add another field with a default for what older readers refuse; or {_NEW_MAJOR}",
    Rule.MADE_REQUIRED: "keep the default: older records do not have the field",
    Rule.ADDED_REQUIRED: "give the field a default: older records do not have it",
    Rule.REUSED: "take a name that no release has had",
    Rule.DEFAULT_CHANGED: "keep the default: older records are read with it; write another value instead",
    Rule.UNIT_CHANGED: "keep the unit, and add a field with a default for the other one",
    Rule.VALUE_REMOVED: "keep the value among the known ones: older records have it",
    Rule.CLOSED: "text annotated as a choice; objects that ignore what they do not know; unions with a "
    "member tagged 'unknown'",
    Rule.TYPE_REMOVED: f"keep the type on the topic; to end it, {_NEW_TOPIC}",
    Rule.TOPIC_REMOVED: "keep the topic; to end it, release it as deprecated, and remove it after that day",
    Rule.TOPIC_REUSED: "take a name that no release has had",
    Rule.KEY_CHANGED: _NEW_TOPIC,
    Rule.PARTITIONING_CHANGED: _NEW_TOPIC,
    Rule.CLEANUP_CHANGED: _NEW_TOPIC,
    Rule.RETENTION_SHORTENED: "the retention promised, or a longer one",
    Rule.END_ADVANCED: "the day announced, or a later one",
    Rule.VISIBILITY_REDUCED: f"keep it public; to end it, {_NEW_TOPIC}",
    Rule.MAJOR_IN_PLACE: f"a topic of its own for the new major version: {_NEW_TOPIC}",
}


class Breach(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One promise that would be broken."""

    subject: str  #: the topic or ``ce_type``
    path: str  #: of the field; ``*`` stands for items of lists and maps, ``[tag]`` for a union's member
    rule: Rule
    told: str  #: what changed
    releases: tuple[str, ...] = ()  #: which promised otherwise

    @property
    def allowed(self) -> str:
        """What can be done instead."""
        return ALLOWED[self.rule]


def gathered(found: Iterable[tuple[str, Breach]]) -> list[Breach]:
    """Each breach of *found*, which are of one release each, once, with all its releases; sorted."""
    releases: dict[Breach, list[str]] = {}
    for release, breach in found:
        releases.setdefault(breach, []).append(release)
    return sorted(
        msgspec.structs.replace(breach, releases=tuple(name for name in names if name))
        for breach, names in releases.items()
    )
