"""Batch norm with statistics for several domains, and one set of weights.

::

    make_adaptive(model)
    with adapted(model, "sketches"):
        recalibrate(model, loader)
        evaluate(model)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from greend_agent.norm.recalibration import STATISTICS


class _Adaptive(_BatchNorm):
    """A batch norm with statistics of its own for each domain; weight and bias are shared."""

    domain: str | None = None
    """The domain whose statistics are used and, in training, updated; None is the source."""

    @property
    def domains(self) -> list[str]:
        """The domains that there are beside the source."""
        away = [name.partition("@") for name in self._buffers]
        return sorted({d for stat, _, d in away if stat == STATISTICS[0] and d} | {self.domain or ""} - {""})

    def adapt(self, domain: str | None = None) -> None:
        """Use the statistics of a domain, which begins with those of the source; None: of the source.

        Raises ValueError for an empty name, or one with a dot.
        """
        if domain is not None and (not domain or "." in domain):
            raise ValueError(f"adapt: a domain needs a name without a dot, not {domain!r}")
        if domain == self.domain or self.running_mean is None:
            return
        for name in STATISTICS:
            # Another object, rather than other values in the same one: a graph that is still to be run
            # backward may hold it. Not persistent, as a plain batch norm would not know it.
            self.register_buffer(_away(name, self.domain), self._buffers[name], persistent=False)
            key = _away(name, domain)
            if key in self._buffers:
                self._buffers[name] = self._buffers[key]
                delattr(self, key)
            else:
                source = self._buffers[_away(name, None)]
                self._buffers[name] = source.clone() if source is not None else None
        self.domain = domain

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        with adapted(self, None):
            super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        with adapted(self, None):
            super()._load_from_state_dict(*args, **kwargs)


class AdaptiveBatchNorm1d(_Adaptive, nn.BatchNorm1d):
    """An `nn.BatchNorm1d` that keeps running statistics for each domain.

    Its `state_dict` is that of the plain layer, with the statistics of the source in whatever domain it is;
    those of the other domains are saved by `domain_state_dict`.
    """


class AdaptiveBatchNorm2d(_Adaptive, nn.BatchNorm2d):
    """An `nn.BatchNorm2d` that keeps running statistics for each domain; see `AdaptiveBatchNorm1d`."""


class AdaptiveBatchNorm3d(_Adaptive, nn.BatchNorm3d):
    """An `nn.BatchNorm3d` that keeps running statistics for each domain; see `AdaptiveBatchNorm1d`."""


_ADAPTIVE: dict[type, type[_Adaptive]] = {
    nn.BatchNorm1d: AdaptiveBatchNorm1d,
    nn.BatchNorm2d: AdaptiveBatchNorm2d,
    nn.BatchNorm3d: AdaptiveBatchNorm3d,
}


def adaptive_layers(model: nn.Module) -> dict[str, _Adaptive]:
    """Return the layers of a model that keep statistics for each domain, by their names."""
    return {name: m for name, m in model.named_modules() if isinstance(m, _Adaptive)}


def make_adaptive(model: nn.Module) -> nn.Module:
    """Let every plain batch norm of a model, in place, keep statistics for each domain; return the model.

    A model that is attached then stays full, as a level would need statistics of its own.
    """
    for module in model.modules():
        # Another class, rather than another module: its hooks, and who else holds it, are not disturbed.
        module.__class__ = _ADAPTIVE.get(type(module), type(module))
    return model


@contextlib.contextmanager
def adapted(model: nn.Module, domain: str | None) -> Iterator[None]:
    """Inside, the adaptive layers of a model use the statistics of a domain; None: of the source.

    Raises ValueError for a model without adaptive layers.
    """
    before = [(layer, layer.domain) for layer in adaptive_layers(model).values()]
    if not before:
        raise ValueError("adapted: the model has no adaptive batch norm; call make_adaptive(model) before")
    try:
        for layer, _ in before:
            layer.adapt(domain)
        yield
    finally:
        for layer, own in before:
            layer.adapt(own)


def domain_state_dict(model: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    """Return, for each domain but the source, what `model.state_dict()` would have of it as the source.

    A plain model becomes that of a domain by `load_state_dict(these[domain], strict=False)`.
    """
    state: dict[str, dict[str, torch.Tensor]] = {}
    for prefix, layer in adaptive_layers(model).items():
        for domain in layer.domains:
            with adapted(layer, domain):
                for name in STATISTICS:
                    value = layer._buffers[name]
                    assert value is not None
                    state.setdefault(domain, {})[f"{prefix}.{name}".lstrip(".")] = value.detach()
    return state


def load_domain_state_dict(model: nn.Module, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    """Copy the statistics of domains into a model; raises KeyError for a layer that is not in them."""
    for domain, values in state.items():
        for prefix, layer in adaptive_layers(model).items():
            with adapted(layer, domain):
                for name in STATISTICS:
                    buffer = layer._buffers[name]
                    assert buffer is not None
                    buffer.copy_(values[f"{prefix}.{name}".lstrip(".")])


def _away(statistic: str, domain: str | None) -> str:
    return f"{statistic}@{domain or ''}"
