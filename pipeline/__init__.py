"""An exactly-once event-stream pipeline between Sakari (SMS) and the Users API (HighLevel)."""
