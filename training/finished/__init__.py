"""Models that are ready: out of a run directory, used, saved and exported."""
