"""Checkpoints in Hugging Face's format, and text from a language model."""

from .checkpoint import load, read_config, save
from .generate import generate

__all__ = ["generate", "load", "read_config", "save"]
