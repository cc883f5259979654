"""The dimensions in which a fact is counted (DESIGN §4)."""

from pipeline.events import Activity, Message
from pipeline.windows import ALL, dimension

__all__ = ["of_activity", "of_message"]


def of_message(message: Message, activity: Activity, max_tags: int) -> tuple[str, ...]:
    """All, at most *max_tags* tags of the contact, and what the message itself tells."""
    told = (
        ("job", message.job_id),
        ("campaign", message.campaign_id),
        ("template", message.template_id),
        ("number", message.number),
    )
    return (*_common(activity, max_tags), *[dimension(kind, value) for kind, value in told if value])


def of_activity(activity: Activity, number: str | None, max_tags: int) -> tuple[str, ...]:
    """The dimensions of a fact that is no message: all, tags, and our number where it is known."""
    return _common(activity, max_tags) + ((dimension("number", number),) if number else ())


def _common(activity: Activity, max_tags: int) -> tuple[str, ...]:
    tags = activity.contact.tags if activity.contact else ()
    if not tags:
        return (ALL,)
    named = [
        dimension("tag:id", tag.tag_id) if tag.tag_id else dimension("tag:name", tag.folded)
        for tag in tags
        if tag.tag_id or tag.folded
    ]
    return (ALL, *[*dict.fromkeys(named)][:max_tags])
