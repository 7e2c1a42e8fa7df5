"""The meaning of an optimizer's state, and how it follows a cut."""

from .meanings import MEANINGS
from .registry import register_state

__all__ = ["MEANINGS", "register_state"]
