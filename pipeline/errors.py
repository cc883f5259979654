"""
Every error of the pipeline, and what is done about it.

The tree, each class with its disposition::

    PipelineError
    ├── ConfigError            EXIT         before joining a group; names every problem at once
    ├── RecordError            DEAD_LETTER  the record goes to ``dead-letters``, the stage goes on
    ├── UpstreamError          BACK_OFF     an API did not do what it was asked
    │   ├── Unavailable        BACK_OFF     no answer, 5xx, a broken body: try again later
    │   ├── Throttled          BACK_OFF     429: try again after ``retry_after_s``
    │   └── Rejected           DEAD_LETTER  the API refused this request for good
    ├── BrokerError            REBUILD      drop the producer, start anew from the committed offsets
    ├── StageFailed            STOP         too many unexpected exceptions: the stage stops, loudly
    ├── Stuck                  EXIT         no progress though Kafka answers: ended, to be started anew
    └── WebhookError           ANSWER       an HTTP status for the sender; nothing is produced

Foreign exceptions become one of these in exactly one place per client.
"""

from collections.abc import Iterable
from enum import Enum
from typing import ClassVar

__all__ = [
    "BrokerError",
    "ConfigError",
    "Disposition",
    "PipelineError",
    "RecordError",
    "Rejected",
    "StageFailed",
    "Stuck",
    "Throttled",
    "Unavailable",
    "UpstreamError",
    "WebhookError",
]


class Disposition(Enum):
    """What the pipeline does when an error of a class surfaces."""

    EXIT = "exit"
    DEAD_LETTER = "dead-letter"
    BACK_OFF = "back-off"
    REBUILD = "rebuild"
    STOP = "stop"
    ANSWER = "answer"


class PipelineError(Exception):
    """The root of the tree; ``disposition`` says what is done."""

    disposition: ClassVar[Disposition] = Disposition.EXIT


class ConfigError(PipelineError):
    """Settings, topics or a command line that cannot be used; lists every problem."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class RecordError(PipelineError):
    """A record that cannot be processed; ``reason`` is a short machine-readable word."""

    disposition = Disposition.DEAD_LETTER

    def __init__(self, reason: str, message: str = "") -> None:
        self.reason = reason
        super().__init__(message or reason)


class UpstreamError(PipelineError):
    """An API did not do what it was asked."""

    disposition = Disposition.BACK_OFF


class Unavailable(UpstreamError):  # noqa: N818 - named as the state it reports
    """No answer, a 5xx, or an answer that cannot be read: try again later."""


class Throttled(UpstreamError):  # noqa: N818
    """The API limits us; ``retry_after_s`` is its wish in seconds, None where it gave none."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class Rejected(UpstreamError):  # noqa: N818
    """The API refused the request for good; ``status`` is HTTP's, ``body`` its masked beginning."""

    disposition = Disposition.DEAD_LETTER

    def __init__(self, status: int, body: str) -> None:
        self.status = status
        self.body = body
        super().__init__(f"status {status}: {body}")


class BrokerError(PipelineError):
    """Kafka failed us: retried, or the task is rebuilt from its committed offsets."""

    disposition = Disposition.REBUILD


class StageFailed(PipelineError):  # noqa: N818
    """A stage has a bug, by the number of its unexpected exceptions: it stops and is unready."""

    disposition = Disposition.STOP


class Stuck(PipelineError):  # noqa: N818
    """A stage makes no progress though Kafka answers: the process ends, to be started anew."""


class WebhookError(PipelineError):
    """A webhook that is answered with ``status`` and not produced."""

    disposition = Disposition.ANSWER

    def __init__(self, status: int, message: str, retry_after_s: int | None = None) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(message)
