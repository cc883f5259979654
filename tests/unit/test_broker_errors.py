"""What aiokafka raises becomes one of ours: nothing of Kafka's is taken for a bug of a stage."""

from typing import Any

import pytest
from aiokafka import errors

from pipeline.errors import BrokerError
from pipeline.runtime.transaction import FencedError, RecordRefusedError, broker_errors

EVERY = [
    each
    for each in vars(errors).values()
    if isinstance(each, type)
    and issubclass(each, Exception)
    and each.__module__ == errors.__name__
    and each is not errors.BrokerResponseError  # has no number of its own: never raised
]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_of_the_client_is_the_brokers(kind: type[Exception]) -> None:
    """Whichever it is, the session is rebuilt, and the stage is not suspected."""
    with pytest.raises(BrokerError, match="trying"), broker_errors("trying"):
        raise kind


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (errors.ProducerFenced(), FencedError),
        (errors.InvalidProducerEpoch(), FencedError),
        (errors.MessageSizeTooLargeError(), RecordRefusedError),
        (errors.InvalidTimestampError(), RecordRefusedError),
    ],
)
def test_what_needs_another_answer_is_told_apart(raised: Exception, told: Any) -> None:
    """A fenced task waits for news of its group; a refused record is looked for by halving."""
    with pytest.raises(told), broker_errors("trying"):
        raise raised


def test_a_bug_stays_a_bug() -> None:
    """A stage's own error is not put down to Kafka."""
    with pytest.raises(KeyError), broker_errors("trying"):
        raise KeyError("a field")
