"""What the parts of an optimizer's state mean, and how they follow a cut."""

from .meanings import MEANINGS
from .registry import register_state

__all__ = ["MEANINGS", "register_state"]
