"""The layers whose widths can be cut: where their tensors have them, and what stands in the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

_CLASSES = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    _BatchNorm, nn.SyncBatchNorm, nn.GroupNorm, nn.PReLU,
)  # fmt: skip
_FORWARDS = frozenset(kind.forward for kind in _CLASSES)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A module, and along which dimensions its tensors have its widths."""

    module: nn.Module
    makes: tuple[tuple[torch.Tensor, int], ...]
    """What has the output width, and in which dimension."""
    reads: tuple[tuple[torch.Tensor, int], ...] = ()
    """What has the input width; nothing for a layer that passes each channel on by itself."""
    out_width: int = 0
    in_width: int = 0
    counters: tuple[str, ...] = ()
    """Attributes of the module that say the output width and are used as it runs."""
    unit: int = 1
    """How many channels belong together: those of one group of a convolution or a norm."""

    @property
    def passes(self) -> bool:
        """Whether the layer works on each channel by itself."""
        return not self.reads


def layer_of(module: nn.Module) -> Layer | None:
    """Return how a module has its widths; None for one that is not known."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if isinstance(module, (_BatchNorm, nn.GroupNorm, nn.PReLU)):
        return _per_channel(module)
    if not isinstance(weight, torch.Tensor) or weight.dim() < 2:
        return None
    if isinstance(module, nn.Linear) or _is_conv(module, transposed=False):
        make, read = 0, 1
    elif _is_conv(module, transposed=True) or _is_transposed_linear(module):
        make, read = 1, 0
    else:
        return _grouped(module)
    makes = [(weight, make)] + ([(bias, 0)] if isinstance(bias, torch.Tensor) else [])
    counters = ("nf",) if isinstance(getattr(module, "nf", None), int) else ()
    return Layer(module, tuple(makes), ((weight, read),), weight.shape[make], weight.shape[read], counters)


def _per_channel(module: Any) -> Layer | None:
    tensors = [module._parameters.get("weight"), module._parameters.get("bias")]
    tensors += [module._buffers.get("running_mean"), module._buffers.get("running_var")]
    makes = tuple((t, 0) for t in tensors if t is not None and t.numel() > 1)
    if isinstance(module, nn.GroupNorm):
        unit = module.num_channels // module.num_groups
        return Layer(module, makes, (), module.num_channels, module.num_channels, ("num_groups",), unit)
    return Layer(module, makes, (), makes[0][0].shape[0], makes[0][0].shape[0]) if makes else None


def _grouped(module: nn.Module) -> Layer | None:
    """A convolution in groups passes each group on by itself; depthwise, each channel."""
    if not isinstance(module, _ConvNd) or isinstance(module, _ConvTransposeNd):
        return None
    if module.groups == 1 or module.in_channels != module.out_channels:
        return None
    makes = [(module.weight, 0)] + ([(module.bias, 0)] if module.bias is not None else [])
    width = module.out_channels
    return Layer(module, tuple(makes), (), width, width, ("groups",), width // module.groups)


def _is_conv(module: nn.Module, *, transposed: bool) -> bool:
    if not isinstance(module, _ConvNd) or module.groups != 1:
        return False
    return isinstance(module, _ConvTransposeNd) == transposed


def _is_transposed_linear(module: nn.Module) -> bool:
    # GPT-2 in Hugging Face's transformers keeps the weight of a linear layer as (in, out).
    return type(module).__name__ == "Conv1D" and isinstance(getattr(module, "nf", None), int)


class Fitness:
    """Which layers can be windowed at all."""

    def __init__(
        self,
        model: nn.Module,
        called: Iterable[nn.Module],
        trained: Collection[nn.Parameter] | None,
        reads: Mapping[nn.Parameter, int] | None = None,
    ) -> None:
        self._called = Counter(called)
        self._reads = reads or {}
        self._owners = Counter(
            id(p) for m in model.modules() for p in m._parameters.values() if p is not None
        )
        self._trained = None if trained is None else {id(p) for p in trained}

    def reason(self, modules: Iterable[nn.Module]) -> str | None:
        """Why one of the layers cannot; None when all can."""
        return next((why for module in modules if (why := self._one(module))), None)

    def _one(self, module: nn.Module) -> str | None:
        if self._called[module] != 1:
            return f"a layer is called {self._called[module]} times in a forward"
        own = type(module).forward in _FORWARDS or _is_transposed_linear(module)
        if not own or "forward" in vars(module):
            return f"a layer is a {type(module).__name__} with a forward of its own"
        for name in ("weight", "bias"):
            reason = self._tensor(module, name)
            if reason is not None:
                return f"a {name} {reason}"
        return None

    def _tensor(self, module: nn.Module, name: str) -> str | None:
        param = module._parameters.get(name)
        if param is None:
            computed = getattr(module, name, None) is not None
            return "is computed (parametrized), not a parameter" if computed else None
        if type(param) is not nn.Parameter:
            return f"is a {type(param).__name__}"
        if (reason := self.of_param(param)) is not None:
            return reason
        return "is read beside its layer's call" if self._reads.get(param, 1) > 1 else None

    def of_param(self, param: nn.Parameter) -> str | None:
        """Why a parameter cannot be windowed, whatever it is read by; None when it can."""
        if self._owners[id(param)] != 1:
            return "is tied to another layer's"
        if self._trained is not None and id(param) not in self._trained:
            return "is not trained by the optimizer"
        if param._backward_hooks or getattr(param, "_post_accumulate_grad_hooks", None):
            return "has a gradient hook that may expect its full shape"
        return None
