"""What an operator did to the data, who and why: told on the topic ``audit``."""

from typing import Annotated

import msgspec

from pipeline.events.fields import at, choice, doc
from pipeline.events.wire import registered
from pipeline.instants import Time

__all__ = ["AuditEntry"]


@registered("audit.entry.v1")
class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One decision of an operator, without personal data of contacts; topic ``audit`` under its action."""

    action: Annotated[
        str,
        choice(
            "What was done",
            "dead-letters.redriven",
            "dead-letters.discarded",
            "dead-letters.edited",
            "person.erased",
        ),
    ]
    by: Annotated[str, doc("Who did it", "ada", personal="pseudonym")]
    at: Annotated[Time, at("When it was done")]
    why: Annotated[str | None, doc("The reason that was given", "sent by a test", personal="none")] = None
    what: Annotated[
        tuple[str, ...], doc("Ids of what it was done to", ["0-1200", "1-87"], personal="none")
    ] = ()
    job: Annotated[str | None, doc("The job that did it, if one did", "5f0c2a91", personal="none")] = None
