"""Out of Kafka: statistics posted to the Users API."""
