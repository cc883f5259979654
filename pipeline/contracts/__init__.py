"""Topics as a product: the schemas of their values, the releases that were promised, and what may change."""
