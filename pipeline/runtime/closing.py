"""Ends aiokafka's clients within a bound, by what subscribers have for it."""

from pipeline.subscribe.closing import coordination_ended, stop_consumer, stop_producer

__all__ = ["coordination_ended", "stop_consumer", "stop_producer"]
