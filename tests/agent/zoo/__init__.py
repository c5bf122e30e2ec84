"""Small models as people write and publish them, each with a call in training form."""

from __future__ import annotations

from . import huggingface, plain, vision
from .family import Family, tensors, training_loss

FAMILIES: tuple[Family, ...] = (*plain.FAMILIES, *vision.FAMILIES, *huggingface.FAMILIES)
"""All families whose library is there."""

__all__ = ["FAMILIES", "Family", "tensors", "training_loss"]
