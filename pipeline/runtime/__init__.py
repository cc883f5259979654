"""The stage runtime: with `subscribe` the only importer of aiokafka."""
