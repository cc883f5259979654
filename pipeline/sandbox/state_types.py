"""What every mutation of the sandbox's state hands back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar

import orjson

from pipeline.sandbox.ids import wire_time

__all__ = ["Change", "Hook", "Json", "Missing", "Product", "found"]

ValueT = TypeVar("ValueT")

Json: TypeAlias = dict[str, Any]
Product: TypeAlias = Literal["sakari", "users"]


class Missing(KeyError):  # noqa: N818 - a fact about the state, answered with 404, no failure
    """No resource has this id; ``args`` are the kind of resource and the id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One webhook a vendor would send; who delivers it decides when, how often and whether."""

    product: Product
    owner: str  #: Sakari account id or Users API location id
    kind: str  #: Sakari ``eventType`` or Users API ``type``
    subject: str  #: native contact id, else the resource's: deliveries of one subject keep their order
    at: datetime  #: when it happened
    body: Mapping[str, Any]  #: exactly the JSON object of the wire

    def encoded(self) -> bytes:
        """The bytes that go over the wire, and over which the Users API signs."""
        return orjson.dumps(self.body)

    def stamped(self, at: datetime) -> "Hook":
        """This webhook with *at* as the Users API's ``timestamp`` of sending; Sakari's have none."""
        if self.product == "sakari":
            return self
        return replace(self, body={**self.body, "timestamp": wire_time(at)})


@dataclass(frozen=True, slots=True)
class Change:
    """A resource after a mutation, and the webhooks it causes, in the vendor's order."""

    value: Json
    hooks: tuple[Hook, ...] = ()

    @property
    def id(self) -> str:
        """The native id of the resource (``_id`` for social-planner tags)."""
        return str(self.value.get("id") or self.value["_id"])


def found(among: Mapping[str, ValueT], kind: str, identity: str) -> ValueT:
    """
    The resource of this *kind* with this id.

    Raises:
        Missing: there is none.
    """
    try:
        return among[identity]
    except KeyError:
        raise Missing(kind, identity) from None
