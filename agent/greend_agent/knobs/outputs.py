"""What a model returns, with other tensors in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import torch


def with_tensors(output: Any, tensors: Iterable[torch.Tensor]) -> Any:
    """Return the same structure with other tensors in the places of its own, in the order they stand.

    A structure is any nesting of tuples, lists, dictionaries and dataclasses that are dictionaries.
    """
    return _filled(output, iter(tensors))


def _filled(output: Any, tensors: Iterator[torch.Tensor]) -> Any:
    if isinstance(output, torch.Tensor):
        return next(tensors)
    if isinstance(output, dict):
        items = {key: _filled(value, tensors) for key, value in output.items()}
        # What transformers return is both: made from a dictionary, it takes that for its first field.
        return type(output)(**items) if dataclasses.is_dataclass(output) else type(output)(items)
    if isinstance(output, (tuple, list)):
        filled = [_filled(item, tensors) for item in output]
        return type(output)(*filled) if hasattr(output, "_fields") else type(output)(filled)
    return output
