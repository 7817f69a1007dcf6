"""The parts of `tests/faults`: network, town, faults, and the programs that run in the town."""
