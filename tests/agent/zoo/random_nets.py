"""Random nets of the shapes that people write, and of those that must not be narrowed."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from .family import Inputs, lively, training_loss
from .middles import HARMLESS, MIXING
from .spec import PLACES, WIDTH, Spec

T = torch.Tensor

_HEADS = 4
_ATTENTIONS = (
    "attention",
    "attention, fused",
    "attention, grouped",
    "attention, constant",
    "attention, asleep",
    "attention over units",
)
_THREE = frozenset(_ATTENTIONS) - {"attention, fused"}
_TWO_MAKERS = frozenset({"glu", "glu of a mean", "sum of two", "concat", "two makers, two readers"})
_TWO_READERS = frozenset({"two readers", "two makers, two readers", "feedback"})
SHAPES = (
    "ffn",
    "glu",
    "fused glu",
    "chain",
    "hidden residual",
    "mixture",
    "split",
    "expand",
    "interleave",
    "concat of one",
    "outer",
    "shared",
    "read and summed",
    "returned",
    "transposed",
    "tied decoder",
    "penalty",
    *sorted(_TWO_MAKERS | _TWO_READERS),
    *_ATTENTIONS,
)


class Block(nn.Module):
    """One block; what a shape is can be read in `between`."""

    def __init__(self, spec: Spec, shape: str, middles: tuple[str, ...], residual: bool) -> None:
        super().__init__()
        self.at, self.shape, self.residual = spec.features, shape, residual
        self.hidden, self.in_line = spec.hidden, spec.kind == "sequence"
        h, d = spec.hidden, WIDTH
        keys = h // 2 if shape == "attention, grouped" else h
        makes = {"fused glu": 2 * h, "attention, fused": 3 * h}.get(shape, h)
        reads = {
            "concat": 2 * h,
            "split": h // 2,
            "expand": 2 * h,
            "interleave": 2 * h,
            "concat of one": h + d,
        }
        self.a, self.b = spec.layer(d, makes), spec.layer(reads.get(shape, h), d)
        if shape in _TWO_MAKERS | _THREE:
            self.c = spec.layer(d, keys)
        if shape in _THREE:
            self.e = spec.layer(d, keys)
        if shape in _TWO_READERS:
            self.e = spec.layer(h, d)
        if shape in ("hidden residual", "chain"):
            self.c = spec.layer(h, h)
        if shape == "mixture":
            self.c, self.e = spec.layer(d, 2), spec.layer(d, h)
        if shape == "transposed" and spec.features == 1:
            transposed = nn.ConvTranspose2d if spec.kind == "image" else nn.ConvTranspose1d
            self.b = transposed(h, d, spec.kernel, padding=spec.kernel // 2)
        if shape == "attention, asleep":
            # Fresh queries are often this small: every place attends to every other alike.
            nn.init.normal_(self.a.weight, std=1e-5)
            nn.init.zeros_(self.a.bias)
        known = HARMLESS | MIXING
        self.middle = nn.Sequential(*(known[name](spec) for name in middles))

    def forward(self, x: T) -> T:
        y = self.b(self.attended(x)) if self.shape in _ATTENTIONS else self.between(x)
        return x + y if self.residual else y

    def between(self, x: T) -> T:
        shape, at = self.shape, self.at
        if shape == "fused glu":
            gate, up = self.a(x).chunk(2, at)
            return self.b(self.middle(gate) * up)
        h = self.middle(self.a(x))
        match shape:
            case "glu":
                return self.b(h * self.c(x))
            case "glu of a mean":
                return self.b(h * self.c(x).mean(at, keepdim=True))
            case "sum of two":
                return self.b(h + self.c(x).tanh())
            case "hidden residual":
                return self.b(h + self.c(h))
            case "chain":
                return self.b(self.c(h).relu())
            case "two readers":
                return self.b(h) + self.e(h.tanh())
            case "two makers, two readers":
                return self.b(h + self.c(x)) * self.e(h).sigmoid()
            case "feedback":
                return self.e(self.a(self.b(h)))
            case "concat":
                return self.b(torch.cat([h, self.c(x)], at))
            case "concat of one":
                return self.b(torch.cat([h, x], at))
            case "split":
                return self.b(h.narrow(at, 0, self.hidden // 2))
            case "shared":
                return self.b(self.middle(self.a(self.b(h))))
            case "read and summed":
                return self.b(h) + h.mean(at, keepdim=True)
            case "tied decoder":
                return self.b(h) + (h @ self.a.weight if at == -1 else self.a.weight.mean())
            case "penalty":
                return self.b(h) + self.b.weight.square().mean()
            case "mixture":
                gates = self.c(x).softmax(at)
                return self.b(h * gates.narrow(at, 0, 1) + self.e(x) * gates.narrow(at, 1, 1))
            case "expand":
                return self.b(torch.cat([h, h.relu()], at))
            case "interleave":
                return self.b(h.repeat_interleave(2, at))
            case "outer":
                return self.b(h * h.sum(at, keepdim=True))
        return self.b(h)

    def attended(self, x: T) -> T:
        fused = self.shape == "attention, fused"
        made = self.a(x).chunk(3, self.at) if fused else (self.a(x), self.c(x), self.e(x))
        q, k, v = (t.unsqueeze(1) if t.dim() == 2 else t.movedim(self.at, -1).flatten(1, -2) for t in made)
        if self.shape == "attention over units":
            y = v @ (q.transpose(1, 2) @ k / q.shape[1]).softmax(-1).transpose(1, 2)
        else:
            size = self.hidden // _HEADS
            fixed = self.shape in ("attention, constant", "attention, asleep")
            heads = (_HEADS, -1) if fixed else (-1, size)
            q, k, v = (t.unflatten(-1, heads).transpose(1, 2) for t in (q, k, v))
            if self.shape == "attention, grouped":
                k, v = (t.repeat_interleave(2, 1) for t in (k, v))
            y = F.scaled_dot_product_attention(q, k, v, scale=1 / math.sqrt(size))
            y = y.transpose(1, 2).flatten(2)
        y = self.middle(y) if self.in_line else y
        if x.dim() == 2:
            return y.squeeze(1)
        return y if self.at == -1 else y.transpose(1, 2).unflatten(-1, x.shape[2:])


class Net(nn.Module):
    """Blocks in a row, and a head."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = nn.ModuleList(Block(spec, *block) for block in spec.blocks)
        self.head = nn.Linear(WIDTH * (math.prod(PLACES[spec.kind]) if spec.head == "flatten" else 1), 3)

    def forward(self, x: T) -> T | tuple[T, T]:
        hidden = None
        for block in self.blocks:
            hidden = block.middle(block.a(x)) if block.shape == "returned" else hidden
            x = block(x)
        if self.spec.head == "flatten":
            y = self.head(x.flatten(1))
        else:
            y = self.head(x.movedim(self.spec.features, -1).flatten(1, -2).mean(1) if x.dim() > 2 else x)
        return y if hidden is None else (y, hidden)


def built(spec: Spec) -> nn.Module:
    """Return the net in training mode; the same spec gives the same weights."""
    torch.manual_seed(spec.seed)
    net = Net(spec)
    lively(net)
    return net.train()


def trains(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a net can be trained: some in-place operations spoil a gradient, some powers overflow."""
    finite = True
    for training in (False, True):
        try:
            training_loss(model.train(training)(*inputs[0])).backward()  # type: ignore[no-untyped-call]
        except RuntimeError:
            finite = False
        finite &= all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
        model.zero_grad()
    return finite


def specs() -> st.SearchStrategy[Spec]:
    """Draw nets; shrinks to one plain block of a vector."""
    # Half of the middles are harmless throughout, or hardly anything would be accepted.
    harmless, any_one = (
        st.lists(st.sampled_from(list(names)), max_size=3).map(tuple)
        for names in (HARMLESS, HARMLESS | MIXING)
    )
    block = st.tuples(st.sampled_from(SHAPES), st.one_of(harmless, any_one), st.booleans())
    return st.builds(
        Spec,
        kind=st.sampled_from(list(PLACES)),
        hidden=st.sampled_from([16, 32, 48]),
        blocks=st.lists(block, min_size=1, max_size=3).map(tuple),
        head=st.sampled_from(["mean", "flatten"]),
        kernel=st.sampled_from([3, 1, 5]),
        seed=st.integers(0, 3),
    )
