"""The stages: pure functions of the contract in `pipeline.stage`."""
