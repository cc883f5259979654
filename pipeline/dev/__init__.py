"""`pipeline dev`: everything on one machine, nothing configured."""
