"""The token bucket: an average that holds over every window, with no gain to tune (pure)."""

from __future__ import annotations


class Bucket:
    """Fills at `rate` a second, is spent step by step, and says how long the next step has to wait.

    In joules, with `rate` in watts, it holds an average power; in seconds of work, with `rate` a share of
    the time, a duty. It holds `burst` at most; what a step takes beyond what is there is owed, up to `debt`.

    **The bound.** Let h be what is held if a step were paid for while it runs, C the rate, b the burst and e
    the most that a step takes. A step begins only when nothing is owed, so that h >= -e at all times as long
    as e <= `debt`. Between two steps h <= b. Within a step of even power P it is no more than that at its
    begin if P >= C, and no more than at its end if P < C, so h <= b there too. A window of w seconds begins
    with at most b, gains at most C·w and ends with at least -e: for every t and w::

        E(t, t+w) <= C·w + b + e

    If a step's joules come unevenly, a window that begins within a step may have the rest of that step on
    top, another e at most. The bound holds for what is told to `spent`; where that is low by a factor, all
    of the right side but the step itself grows by it.
    """

    def __init__(self, rate: float, burst: float, debt: float, now_s: float) -> None:
        self._rate, self._burst, self._debt = rate, burst, debt
        self._held, self._at_s = 0.0, now_s

    def change(self, rate: float, burst: float, debt: float, now_s: float) -> None:
        """Fill at another rate from now on; what is owed stays owed, what is held fits into the new burst.

        To begin anew instead would forgive a step's worth at each change, which a rate that is corrected
        every few seconds turns into a standing error. To be called between two steps.
        """
        self._fill(0.0, now_s)
        self._rate, self._burst, self._debt = rate, burst, debt
        self._held = min(max(self._held, -debt), burst)

    def spent(self, amount: float, now_s: float) -> None:
        """Note that a step that has just ended took so much."""
        self._fill(amount, now_s)

    def wait_s(self, now_s: float) -> float:
        """Return how many seconds from now nothing is owed any more."""
        self._fill(0.0, now_s)
        return max(0.0, -self._held / self._rate)

    def _fill(self, spent: float, now_s: float) -> None:
        # What flows in during a step is used up by it: to let it run over first would hold a loop of steps
        # longer than a burst below its rate (144 W at a cap of 200 W, with steps of a second and 300 J).
        held = self._held + self._rate * (now_s - self._at_s) - spent
        self._held = max(min(held, self._burst), -self._debt)
        self._at_s = now_s
