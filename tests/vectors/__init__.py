"""Golden bytes of every message: what one version writes, every other reads."""
