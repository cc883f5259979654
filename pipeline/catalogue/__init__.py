"""The topics as pages to read: `pipeline topics docs`."""
