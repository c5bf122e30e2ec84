"""What of each kind may be turned down in a model. Each knob looks for itself; `prove` decides."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from torch import nn

from greend_agent import elastic
from greend_agent.dial import Dial
from greend_agent.knobs import depth, kernel, microbatch, precision, resolution, tokens
from greend_agent.knobs.width import Width
from greend_agent.plan.graph import Trace, Walk
from greend_agent.plan.heads import Attention, find_heads
from greend_agent.plan.layers import Fitness
from greend_agent.plan.probe import Call, Run
from greend_agent.plan.prove import prove
from greend_agent.plan.widths import Names, Rejected, find_widths

WIDTHS = frozenset({"ffn", "heads", "channels"})
"""What is turned down unless others are named: at equal FLOPs, on the nets measured, it costs least."""

WITHOUT_WINDOWS = frozenset({"depth", "tokens", "resolution", "precision", "microbatch"})
"""What leaves all tensors as they are, and so goes with optimizers that have state for the whole model."""

Found = tuple[Sequence[Dial], Sequence[Rejected]]


@dataclass(frozen=True)
class Subject:
    """A model, a call of it, and what was seen in a run."""

    model: nn.Module
    call: Call
    run: Run
    seen: Trace
    trained: Collection[nn.Parameter] | None

    @functools.cached_property
    def fit(self) -> Fitness:
        """Which of its layers can be windowed."""
        called = (call.layer.module for call in self.seen.calls)
        return Fitness(self.model, called, self.trained, self.seen.reads())


_OTHERS: dict[str, Callable[[Subject], Found]] = {
    "kernel": lambda s: kernel.find(s.model, s.fit),
    # Asked for by name, also where there are fewer blocks than one would take by oneself.
    "depth": lambda s: depth.find(s.model, s.run, s.trained, enough=depth.LEAST),
    "tokens": lambda s: tokens.find(s.model, s.call, s.run),
    "resolution": lambda s: resolution.find(s.model, s.call, s.run),
    "precision": lambda s: precision.find(s.model, s.call, s.run),
    "microbatch": lambda s: microbatch.find(s.model, s.call, s.run),
}


def propose(subject: Subject, knobs: Collection[str]) -> tuple[list[Dial], list[Rejected]]:
    """Return the dials of knobs that look at the model as it is, and of modules that say how they shrink.

    With what was looked at and cannot be turned, and why.
    """
    dials: list[Dial] = []
    rejected: list[Rejected] = []
    own: Found = elastic.find(subject.model, subject.fit)
    for found, left in (own, *(find(subject) for knob, find in _OTHERS.items() if knob in knobs)):
        dials += found
        rejected += left
    return dials, rejected


def propose_widths(subject: Subject, knobs: Collection[str]) -> tuple[list[Width], list[Rejected]]:
    """Return the hidden widths of the knobs named; the model is best given other weights meanwhile."""
    if WIDTHS.isdisjoint(knobs):
        return [], []
    widths, rejected = _widths(subject)
    return [width for width in widths if width.knob in knobs], rejected


def _widths(subject: Subject) -> tuple[list[Width], list[Rejected]]:
    walk, names = Walk(subject.seen), Names(subject.model)
    widths, rejected, blocked = find_widths(subject.seen, walk, subject.fit, names)
    attentions, unclear = find_heads(subject.model, blocked, walk, subject.fit, names)
    heads, unproven = _settle_layouts(subject.run, attentions)
    # What was rejected as a plain width and turned out to be heads is not told twice.
    told = [name for name, _ in (*unclear, *unproven)] + [dial.name for dial in heads]
    rejected = [r for r in rejected if not any(name.endswith(f"-> {r[0]}") for name in told)]
    return [*widths, *heads], [*rejected, *unclear, *unproven]


def _settle_layouts(run: Run, attentions: Sequence[Attention]) -> tuple[list[Width], list[Rejected]]:
    """Return the dial of each attention whose layout could be proven, and the others with the reason.

    Of attentions of the same make one is tried; the rest is proven with everything else.
    """
    settled: list[Width] = []
    rejected: list[Rejected] = []
    known: dict[object, int | str] = {}
    for attention in attentions:
        if attention.kind not in known:
            known[attention.kind] = _first_proven(run, attention.layouts)
        which = known[attention.kind]
        if isinstance(which, str):
            rejected.append((attention.name, which))
        elif which >= len(attention.layouts):
            rejected.append((attention.name, "its heads are not laid out as those of others of its make"))
        else:
            settled.append(attention.layouts[which])
    return settled, rejected


def _first_proven(run: Run, layouts: Sequence[Width]) -> int | str:
    reason = ""
    for which, layout in enumerate(layouts):
        failed = prove(run, [layout], {layout: max(1, layout.full // 2)})
        if not failed:
            return which
        reason = reason or failed[layout]
    return reason
