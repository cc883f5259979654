"""Standard works that measure the runtime, and nothing that the runtime needs."""
