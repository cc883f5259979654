"""Which partition a key belongs to: murmur2 as Kafka's default partitioner, for every producer and reader."""

from functools import lru_cache
from struct import unpack_from

__all__ = ["murmur2", "partition_of"]

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 of *data* (``org.apache.kafka.common.utils.Utils.murmur2``), unsigned."""
    length = len(data)
    h = 0x9747B28C ^ length
    for word in unpack_from(f"<{length >> 2}I", data):
        k = word * _M & _MASK
        h = (h * _M ^ (k ^ k >> 24) * _M) & _MASK
    rest = data[length & ~3 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


#: Longer keys are not remembered: ids come from outside, and the memory is by number of keys.
_REMEMBERED_BYTES = 256


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of *key* among *partitions*."""
    return (_remembered if len(key) <= _REMEMBERED_BYTES else _computed)(key, partitions)


def _computed(key: bytes, partitions: int) -> int:
    return (murmur2(key) & 0x7FFFFFFF) % partitions


_remembered = lru_cache(maxsize=262_144)(_computed)
