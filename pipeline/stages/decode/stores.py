"""What the decode stage remembers; all of it is on the native key's partition."""

import msgspec

from pipeline.events import SakariContact, UsersContact
from pipeline.stage import Store
from pipeline.stages.redactions import REDACTED

__all__ = [
    "CONTACTS",
    "KEYS",
    "MARKS",
    "RESOURCES",
    "SEEN",
    "SNAPSHOTS",
    "STORES",
    "ContactState",
    "Registers",
    "ResourceState",
    "SakariState",
    "SnapshotState",
    "UsersState",
]


class Registers(msgspec.Struct, frozen=True, array_like=True):
    """
    From when each field of a contact is, so that records may come in any order.

    A stamp is a time at which the record was true followed by the time at which it was observed;
    text order is time order. ``stamp`` is that of the newest record and of every field it carried,
    ``older`` holds the stamps of the other fields (empty text: never carried).
    """

    stamp: str = ""
    older: dict[str, str] = {}
    alive_at: str = ""  #: the latest time at which the contact was known to exist
    removed_at: str = ""  #: empty unless it is gone


class SakariState(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """One Sakari contact; ``value`` is None once it is gone."""

    value: SakariContact | None = None
    registers: Registers = Registers()
    opted_out: bool = False
    opted_changed_at: str = ""  #: time of the latest opt change; empty: none yet


class UsersState(msgspec.Struct, frozen=True, array_like=True, tag="u"):
    """One Users API contact; ``value`` is None once it is gone."""

    value: UsersContact | None = None
    registers: Registers = Registers()
    dnd_all: bool = False  #: the field ``dnd``
    dnd_sms: bool = False  #: ``dndSettings.SMS`` is active or permanent


ContactState = SakariState | UsersState


class ResourceState(msgspec.Struct, frozen=True, array_like=True):
    """A location tag, user or account as last written; ``digest`` is empty once it is gone."""

    digest: str = ""
    stamp: str = ""
    alive: dict[str, str] = {}  #: location that lists it -> when it was last known to do so
    removed: dict[str, str] = {}  #: location that no longer lists it -> since when


class SnapshotState(msgspec.Struct, frozen=True, array_like=True):
    """A statistics snapshot as last written."""

    digest: str
    observed_at: str


#: native key -> contact key; the first one wins, only contact records move it
KEYS: Store[str] = Store("keys", str)
#: native key -> the contact
CONTACTS: Store[ContactState] = Store("contacts", ContactState)
#: ``<topic>|<table key>`` -> the resource
RESOURCES: Store[ResourceState] = Store("resources", ResourceState)
#: ``<day of window end><table key>`` -> the snapshot
SNAPSHOTS: Store[SnapshotState] = Store("snapshots", SnapshotState)
#: ``<day><16 bytes of the hash of a resource's name>`` -> the kinds of its facts that were seen
SEEN: Store[tuple[str, ...]] = Store("seen", tuple[str, ...])
#: name -> number; ``dropped`` is the first day whose seen ids are still kept
MARKS: Store[int] = Store("marks", int)

STORES = (KEYS, CONTACTS, RESOURCES, SNAPSHOTS, SEEN, MARKS, REDACTED)
