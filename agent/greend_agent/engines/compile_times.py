"""How long compiling a level takes, and whether another one will pay."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from greend.clock import NS, mono_ns


class CompileTimes:
    """Which levels have been compiled, and what that took.

    The first step at a level compiles it; what it took longer than another is the time of compiling. Levels
    are kept by how far they are below the top, which alone is there before a plan.
    """

    def __init__(self, clock: Callable[[], int] = mono_ns) -> None:
        self._clock = clock
        self._first_s: dict[int, float] = {}
        self._usual_s: dict[int, float] = {}
        self._known: set[int] = set()
        self._below: int | None = None
        self._since_ns = 0
        self._steps = 0

    @property
    def compile_s(self) -> float | None:
        """The longest that compiling a level has taken; None as long as none has been seen."""
        usual = self._usual_s
        return max((s - usual[below] for below, s in self._first_s.items() if below in usual), default=None)

    def began(self, below: int) -> None:
        """Note how far below the top a step that begins is made."""
        self._below, self._since_ns = below, self._clock()

    def stepped(self) -> None:
        """Note that the step has ended."""
        self._steps += 1
        below, self._below = self._below, None
        if below is None:
            return
        seconds = (self._clock() - self._since_ns) / NS
        if below in self._known:
            self._usual_s[below] = min(seconds, self._usual_s.get(below, seconds))
        else:
            self._known.add(below)
            self._first_s[below] = seconds

    def warmed(self, below: int) -> None:
        """Note that a level has been compiled outside of any step."""
        self._known.add(below)

    def level(self, want: int, costs: Sequence[float], left: int | None) -> int:
        """Return `want`, or if compiling it would not pay, the next level above that has been compiled.

        `costs`: of each level, least first, the top's is 1. `left`: optimizer steps still to come; where
        nobody knows, as many as there have been, so that waiting never costs more than twice the best.
        """
        below = len(costs) - 1 - want
        full_s, compile_s = self._usual_s.get(0), self.compile_s
        if below <= 0 or below in self._known or full_s is None or compile_s is None:
            return want
        if pays(compile_s, full_s, costs[want], self._steps if left is None else left):
            return want
        return want + below - max((known for known in self._known if known < below), default=0)


def pays(compile_s: float, step_s: float, cost: float, left: int) -> bool:
    """Whether a level saves more in the steps that are left than compiling it costs.

    Compiling keeps the processor as busy as a step does: power is on both sides, and seconds are enough.
    `step_s`: of a step at the top; `cost`: of the level, relative to it.
    """
    return compile_s < step_s * (1.0 - cost) * left
