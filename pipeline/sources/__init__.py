"""Into Kafka: receiver, pollers and the clock. The contract of effects is `pipeline.effects`."""
