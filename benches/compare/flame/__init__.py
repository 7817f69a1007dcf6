"""Where a proxy's CPU time goes: `perf` samples its stacks under a load, and they are drawn and counted."""
