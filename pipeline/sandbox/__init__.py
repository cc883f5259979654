"""Both vendors' APIs as real servers that keep state, with sample traffic, its ledger and an oracle."""
