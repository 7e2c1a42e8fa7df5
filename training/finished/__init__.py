"""Trained models: loaded from a run directory, used, saved and exported."""
