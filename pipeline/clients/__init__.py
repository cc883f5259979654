"""HTTP clients of both APIs; foreign exceptions become ours here and nowhere else."""
