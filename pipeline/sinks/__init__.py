"""Out of Kafka: statistics posted to the Users API. The contract of effects is `pipeline.effects`."""
