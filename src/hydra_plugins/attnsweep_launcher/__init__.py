"""Hydra finds attnsweep's launcher and sweeper here; the work is in attnsweep.launching."""
