"""What a job's model may be turned down to, as words: levels and knobs (pure)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from greend.units import nearest

MOST_LEVELS = 8
"""Each level is proven, measured and, under torch.compile, compiled by itself."""

KNOBS = {
    "ffn": "hidden widths of feed-forward layers",
    "heads": "attention heads",
    "channels": "inner channels of convolutions",
    "kernel": "sizes of convolution kernels",
    "depth": "residual blocks that are skipped",
    "tokens": "tokens in the middle layers",
    "resolution": "size of the input",
    "precision": "16-bit arithmetic where it is faster",
    "microbatch": "samples per step",
}


def checked_levels(levels: object) -> int | tuple[float, ...]:
    """Return a number of levels, or their costs relative to the untouched model in order, the top's 1 last.

    Raises ValueError: neither a whole number from 1 to 8, nor that many different costs above 0 up to 1.
    """
    if isinstance(levels, int) and not isinstance(levels, bool):
        if not 1 <= levels <= MOST_LEVELS:
            raise ValueError(f"levels={levels}: from 1 to {MOST_LEVELS} levels are possible")
        return levels
    if isinstance(levels, (str, bytes)) or not isinstance(levels, (Sequence, set, frozenset)):
        raise ValueError(f"levels={levels!r}: a number, or a list of costs as [0.25, 0.5, 1], was expected")
    costs = sorted(float(cost) for cost in levels)
    off = [cost for cost in costs if not 0.0 < cost <= 1.0]
    if off or not costs or len(set(costs)) < len(costs):
        which = f"{off[0]:g} is not" if off else "they are not different numbers"
        raise ValueError(f"levels={levels!r}: {which} above 0 and at most 1, the cost of the untouched model")
    costs = costs if costs[-1] == 1.0 else [*costs, 1.0]
    if len(costs) > MOST_LEVELS:
        raise ValueError(f"levels={levels!r}: at most {MOST_LEVELS} levels are possible, the top included")
    return tuple(costs)


def parse_levels(text: str) -> int | tuple[float, ...]:
    """Return what `4` or `0.25,0.5,1` stands for. Raises ValueError."""
    words = [word.strip() for word in text.split(",")]
    if len(words) == 1 and words[0].isdecimal():
        return checked_levels(int(words[0]))
    try:
        return checked_levels([float(word) for word in words if word])
    except ValueError as error:
        if "levels=" in str(error):
            raise
        raise ValueError(f"levels={text!r}: a number as 4, or costs as 0.25,0.5,1, was expected") from error


def checked_knobs(knobs: Collection[str] | None) -> frozenset[str] | None:
    """Return the names of the knobs that may be used; None: the agent's own choice. Raises ValueError."""
    if knobs is None:
        return None
    if isinstance(knobs, str):
        raise ValueError(f"knobs={knobs!r}: a list of names, as [{knobs!r}], was expected")
    for knob in knobs:
        if knob not in KNOBS:
            hint = nearest(str(knob), KNOBS) or f"; there are {', '.join(KNOBS)}"
            raise ValueError(f"knobs: nothing is called {knob!r}{hint}")
    return frozenset(knobs)


def parse_knobs(text: str) -> frozenset[str] | None:
    """Return the knobs that `ffn,heads` stands for; None without a name. Raises ValueError."""
    return checked_knobs([word.strip() for word in text.split(",") if word.strip()] or None)
