"""
The facts that one message or conversation of Sakari implies, the same from webhook, poll and backfill.

An outbound message: ``sent`` at created.at, ``status:<status>`` at updated.at and, where it carries
both, ``priced:<segments>:<price>`` at updated.at. An inbound one: ``received`` at created.at. Of
several records that imply the same fact the first one to arrive gives its other fields.
A conversation: ``started:<time>`` at created.at, ``closed:<time>`` at ``closed``, or at updated.at
where that is merely true.
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from pipeline.events import (
    ConversationClosed,
    ConversationStarted,
    Message,
    MessagePriced,
    MessageReceived,
    MessageSent,
    MessageStatusChanged,
    SakariFact,
)
from pipeline.identity import fact_id_of, native_key, resource_name
from pipeline.instants import Time
from pipeline.stages.decode import sakari_wire as wire
from pipeline.stages.decode.contacts import contact_key
from pipeline.stages.decode.intake import Intake
from pipeline.stages.decode.parse import (
    Id,
    as_count,
    as_decimal,
    as_flag,
    as_id,
    as_time,
    decoded,
    is_plain_time,
    required,
)

__all__ = ["conversation", "message"]

_TOPIC = "sakari.events"
#: What went wrong with a message.
_Error: TypeAlias = wire.Failure | str | None
#: Makes a fact of a message that implies it.
_Make: TypeAlias = Callable[[Intake, Message, _Error], SakariFact]

_CONVERSATION = msgspec.json.Decoder(wire.Conversation)


def message(
    intake: Intake, given: wire.Message, where: str, outgoing: bool | None, event_id: str | None
) -> None:
    """
    All that a message implies.

    *outgoing* is what the kind of webhook says where the message does not; *event_id* that of the
    document's webhook, which stands in for a missing id. Such a webhook may lack created.at too:
    then it tells its status as of its arrival, and not that a message was sent.
    """
    identifier = as_id(given.id) or required(event_id, f"{where}.id")
    created = _at(given.created, where, "created")
    if created is None and event_id is None:
        created = required(created, f"{where}.created.at")
    known = created or intake.received_at
    told = _message(intake, given, where, identifier, created=known, outgoing=outgoing)
    key = _whose(intake, given.contact)
    name = resource_name("sakari", intake.account, "message", identifier)
    implied = _implied(told, is_dated=created is not None)
    for kind in intake.news(name, known, implied):
        intake.tell(_TOPIC, key, implied[kind](intake, told, given.error), fact_id_of(name, kind))


def _message(
    intake: Intake, given: wire.Message, where: str, identifier: str, *, created: Time, outgoing: bool | None
) -> Message:
    status = (given.status or "").strip().lower()
    flag = given.outgoing
    if not isinstance(flag, bool):
        flag = as_flag(flag, f"{where}.outgoing")
    if flag is None:
        flag = status != "received" if outgoing is None else outgoing
    within = given.conversation
    inside = within.phone_number if isinstance(within, wire.Within) else None
    return Message(
        id=identifier,
        conversation_id=_ref(within),
        contact_id=(given.contact.id or None) if given.contact else None,
        outgoing=flag,
        status=status,
        text=given.message,
        template_id=_ref(given.template),
        job_id=_ref(given.job),
        campaign_id=_campaign(given),
        group_id=_ref(given.group),
        number=_own_number(intake, inside or given.phone_number),
        country=given.country,
        segments=as_count(given.segments, f"{where}.segments"),
        price=as_decimal(given.price, f"{where}.price"),
        media=len(given.media or ()),
        source=_source(given.created),
        created_at=created,
        updated_at=_at(given.updated, where, "updated") or created,
    )


def _implied(told: Message, *, is_dated: bool) -> dict[str, _Make]:
    """
    The kinds of all facts that the message *told* implies, and what makes each.

    One that *is_dated* tells when it was created.
    """
    if not told.outgoing:
        return {"received": _received}
    facts: dict[str, _Make] = {"sent": _sent} if is_dated else {}
    if told.status:
        facts[f"status:{told.status}"] = _status_changed
    if is_dated and told.segments is not None and told.price is not None:
        facts[f"priced:{told.segments}:{told.price}"] = _priced
    return facts


def _received(intake: Intake, told: Message, _: _Error) -> SakariFact:
    return MessageReceived(
        tenant=intake.tenant, account_id=intake.account, occurred_at=told.created_at, message=told
    )


def _sent(intake: Intake, told: Message, _: _Error) -> SakariFact:
    return MessageSent(
        tenant=intake.tenant, account_id=intake.account, occurred_at=told.created_at, message=told
    )


def _status_changed(intake: Intake, told: Message, error: _Error) -> SakariFact:
    code, text = _failure(error)
    return MessageStatusChanged(
        tenant=intake.tenant,
        account_id=intake.account,
        occurred_at=told.updated_at,
        message=told,
        status=told.status,
        error_code=code,
        error=text,
    )


def _priced(intake: Intake, told: Message, _: _Error) -> SakariFact:
    return MessagePriced(
        tenant=intake.tenant,
        account_id=intake.account,
        occurred_at=told.updated_at,
        message=told,
        segments=told.segments or 0,
        price=told.price or "0",
    )


def _failure(error: _Error) -> tuple[str | None, str | None]:
    """Code and text of what went wrong with a message."""
    if isinstance(error, wire.Failure):
        return as_id(error.code), error.description or error.message
    return None, error


def conversation(intake: Intake, body: bytes | msgspec.Raw, where: str, *, is_closed: bool = False) -> None:
    """All that a conversation implies; *is_closed* where the kind of webhook says so."""
    given = decoded(_CONVERSATION, body, where)
    identifier = required(as_id(given.id), f"{where}.id")
    key = _whose(intake, given.contact)
    created = _at(given.created, where, "created")
    closed = _closed_at(intake, given, where, is_closed=is_closed)
    if created is None and closed is None:
        created = required(created, f"{where}.created.at")
    name = resource_name("sakari", intake.account, "conversation", identifier)
    for kind, fact, at in (("started", ConversationStarted, created), ("closed", ConversationClosed, closed)):
        if at is not None:
            value = fact(
                tenant=intake.tenant,
                account_id=intake.account,
                occurred_at=at,
                conversation_id=identifier,
                contact_id=(given.contact.id or None) if given.contact else None,
                number=_own_number(intake, given.phone_number),
            )
            intake.fact(_TOPIC, key, value, name, f"{kind}:{at}")


def _closed_at(intake: Intake, given: wire.Conversation, where: str, *, is_closed: bool) -> Time | None:
    if isinstance(given.closed, str) and given.closed.lower() not in {"true", "false", ""}:
        return as_time(given.closed, f"{where}.closed")
    if is_closed or as_flag(given.closed, f"{where}.closed"):
        return _at(given.updated, where, "updated") or intake.observed_at
    return None


def _whose(intake: Intake, who: wire.Who | None) -> str:
    """The contact key of *who*; without a contact the record's own, which is a native key."""
    if who is None or not who.id:
        return intake.event.key
    native = native_key(intake.tenant, "s", who.id)
    intake.expect_key(native)
    return contact_key(intake, native, who.mobile)


def _own_number(intake: Intake, number: wire.Mobile | Id) -> str | None:
    text, country = wire.number_of(number)
    return intake.keys.own_number(intake.tenant, text, country or intake.terms.region)


def _at(moment: wire.Moment | None, where: str, name: str) -> Time | None:
    if moment is None:
        return None
    at = moment.at
    return Time(at) if isinstance(at, str) and is_plain_time(at) else as_time(at, f"{where}.{name}.at")


def _ref(value: wire.Ref | wire.Within | Id) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) else as_id(value.id)


def _campaign(given: wire.Message) -> str | None:
    job = given.job
    if isinstance(job, wire.Ref):
        told = _ref(job.campaign) or as_id(job.campaign_id)
        if told:
            return told
    return _ref(given.campaign)


def _source(created: wire.Moment | None) -> str | None:
    by = created.by if created else None
    return by.source if isinstance(by, wire.Author) else None
