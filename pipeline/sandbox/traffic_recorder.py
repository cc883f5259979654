"""Writes what the sample traffic does into the ledger, from the resources as the state returned them."""

from decimal import Decimal
from typing import Any

from pipeline.sandbox.ids import from_wire_time
from pipeline.sandbox.ledger import Ledger
from pipeline.sandbox.sakari_state import OPT_OUT_ERROR
from pipeline.sandbox.state import Hook, Json
from pipeline.sandbox.webhooks import Attempt
from pipeline.sandbox.world import TenantWorld, World

__all__ = ["Recorder", "price_text"]


class Recorder:
    """Turns resources into rows."""

    def __init__(self, ledger: Ledger, world: World) -> None:
        self.ledger = ledger
        self._tenant_of = {
            owner: name
            for name, tenant in world.tenants.items()
            for owner in (tenant.account.id, tenant.location.id)
        }

    def tenant(self, tenant: TenantWorld) -> None:
        """A customer, and all that is theirs now."""
        spec = tenant.spec
        self.ledger.note(
            "tenants",
            tenant=spec.name,
            time_zone=spec.time_zone,
            region=spec.region,
            dialect=spec.dialect,
            account_id=tenant.account.id,
            location_id=tenant.location.id,
        )
        for contact in tenant.account.contacts.values():
            self.sakari_contact(tenant, contact)
        for contact in tenant.location.contacts.values():
            self.users_contact(tenant, contact)
        for tag in tenant.location.tags:
            self.location_tag(tenant, tag)

    def sakari_contact(self, tenant: TenantWorld, contact: Json, *, removed: bool = False) -> None:
        """A version of a Sakari contact."""
        mobile = contact.get("mobile") or {}
        self.ledger.note(
            "contacts",
            tenant=tenant.spec.name,
            system="sakari",
            account_id=tenant.account.id,
            contact_id=contact["id"],
            number=mobile.get("number"),
            country=mobile.get("country"),
            tags=[tag["tag"] for tag in contact["tags"]],
            removed=removed,
            blocked=contact.get("error", {}).get("code") == OPT_OUT_ERROR["code"],
        )

    def users_contact(self, tenant: TenantWorld, contact: Json, *, removed: bool = False) -> None:
        """A version of a Users API contact."""
        self.ledger.note(
            "contacts",
            tenant=tenant.spec.name,
            system="users",
            account_id=tenant.location.id,
            contact_id=contact["id"],
            number=contact.get("phone"),
            country=contact.get("country"),
            tags=contact["tags"],
            removed=removed,
            blocked=contact["dnd"],
        )

    def location_tag(self, tenant: TenantWorld, tag_id: str) -> None:
        """A location tag as it stands; marked removed where it no longer does."""
        details = tenant.location.tag_details(tag_id) or {"deleted": True}
        self.ledger.note(
            "location_tags",
            tenant=tenant.spec.name,
            location_id=tenant.location.id,
            tag_id=tag_id,
            name=details.get("tag"),
            colour=details.get("color"),
            description=details.get("description"),
            removed=details["deleted"],
        )

    def message(self, tenant: TenantWorld, message: Json) -> None:
        """A version of a message."""
        job = message.get("job", {})
        self.ledger.note(
            "messages",
            tenant=tenant.spec.name,
            account_id=tenant.account.id,
            message_id=message["id"],
            contact_id=message["contact"]["id"],
            conversation_id=message["conversation"]["id"],
            outgoing=message["outgoing"],
            status=message["status"],
            created_ms=_ms(message["created"]["at"]),
            updated_ms=_ms(message["updated"]["at"]),
            segments=message["segments"],
            price=price_text(message["price"]),
            template=message.get("template"),
            job=job.get("id"),
            campaign=job.get("campaign", {}).get("id"),
            number=tenant.account.numbers[message["number"]]["number"],
        )

    def conversation(self, tenant: TenantWorld, conversation: Json) -> None:
        """A version of a conversation."""
        closed = conversation.get("closed")
        self.ledger.note(
            "conversations",
            tenant=tenant.spec.name,
            account_id=tenant.account.id,
            conversation_id=conversation["id"],
            contact_id=conversation["contact"]["id"],
            number=conversation["phoneNumber"]["number"],
            created_ms=_ms(conversation["created"]["at"]),
            closed_ms=_ms(closed) if closed else None,
        )

    def webhook(self, identity: str, hook: Hook) -> None:
        """A webhook is handed in for delivery; an opt change is told by nothing else."""
        payload = hook.body.get("payload", {})
        tenant = self._tenant_of[hook.owner]
        is_message = hook.kind.startswith(("message", "conversation"))
        updated = payload.get("updated", {}).get("at")
        self.ledger.note(
            "webhooks",
            webhook=identity,
            tenant=tenant,
            product=hook.product,
            kind=hook.kind,
            contact_id=hook.subject,
            resource_id=payload["id"] if is_message else None,
            updated_ms=_ms(updated) if updated else None,
        )
        if hook.kind in ("contact-opt-out", "contact-opt-in"):
            self.ledger.note(
                "opts",
                tenant=tenant,
                account_id=hook.owner,
                contact_id=hook.subject,
                webhook=identity,
                out=hook.kind == "contact-opt-out",
                changed_ms=_ms(updated) if updated else None,
            )

    def delivered(self, attempt: Attempt) -> None:
        """The last attempt of a delivery; ids not made here (webhooks that API calls cause) are passed by."""
        identity = attempt.id.partition("+")[0]
        if identity.startswith("w"):
            self.ledger.note(
                "deliveries",
                webhook=identity,
                twin="+" in attempt.id,
                accepted=attempt.accepted,
                status=attempt.status,
                attempts=attempt.number,
            )


def price_text(price: Any) -> str:
    """A JSON number as plain decimal text."""
    return f"{Decimal(str(price)).normalize():f}"


def _ms(text: str) -> int:
    return round(from_wire_time(text).timestamp() * 1000)
