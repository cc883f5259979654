"""Into Kafka: receiver, pollers and the clock."""
