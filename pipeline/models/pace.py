"""How fast a server lets us go when it doesn't say: learned from its refusals (429) alone.

Between two moments at which a server's allowance was used up, it let in exactly what its limit allows: calls let in ÷ seconds
is the limit. A call is let in when it starts, not when its answer comes: those under way at either moment would be counted
on the wrong side. So the first refusal sets a pace just below what was let in so far; as a burst that the server had granted
runs out, and most calls are refused, it is halved; a refusal after a while sets it anew, just below what was measured. In
between it grows, slowly at first, then faster, until the limit answers: about one call in a hundred is refused.

A refusal at a pace that was let in before has another cause than the pace, and doesn't slow us down further.
This file never sees a clock, a socket or a task.
"""

from __future__ import annotations

import math

_BELOW = 0.9
_SLOWER = 0.5
# Growth a call: its exponent rises by this, and by a tenth of it more for every call since the last refusal.
_GROWTH = 0.0005
# A measurement needs so many seconds.
_LONG_ENOUGH_S = 1.0
_SHORTEST_S = 0.05
# Share of refused calls, smoothed over about ten of them, above which the limit is far below the pace. Below it are servers
# that refuse every other call, at whatever pace, because others use them too: halving would go on until nothing is asked.
_MANY = 0.7
# Calls a second; no provider's limit is lower. Refused even so, it is not the pace: all begins anew.
_SLOWEST = 0.02
_SMOOTHING = 0.1
# Refused below this share of a pace that was let in before: not the pace was to blame. So often in a row: it never is.
_CONTRADICTS = 0.93
_FUTILE = 3
_FORGETS = 0.98


class Pace:
    """`rate`: calls a second, infinite until a call was refused."""

    def __init__(self) -> None:
        self.rate = math.inf
        self._since: float | None = None
        # Measurements so far, and calls started since the last that weren't refused.
        self._epoch = 0
        self._let_in = 0
        self._run = 0
        self._refused_share = 0.0
        self._proved = 0.0
        self._contradictions = 0

    @property
    def overrun(self) -> bool:
        """Whether most of the latest calls were refused."""
        return self._refused_share >= _MANY

    def started(self) -> int:
        """A call starts. `refused` takes what is returned: the measurement to which the call belongs."""
        self._let_in += 1
        return self._epoch

    def let_in(self, busy_s: float) -> None:
        """A call was not refused. busy_s: seconds so far in which calls were under way or held back, not those without any."""
        if self._since is None:
            # From the first answer: connecting takes time that says nothing of a limit.
            self._since = busy_s
        self._refused_share *= 1 - _SMOOTHING
        self._run += 1
        if self.rate < math.inf:
            self.rate *= 1 + _GROWTH * (1 + self._run / 10)

    def refused(self, busy_s: float, started: int, *, counts: bool) -> None:
        """A call was refused; `counts` when it was started after the last cut, so that it tells of the pace since."""
        self._let_in -= started == self._epoch
        self._refused_share += _SMOOTHING * (1 - self._refused_share)
        if not counts:
            return
        self._run = 0
        elapsed = busy_s - (busy_s if self._since is None else self._since)
        if self.overrun:
            self._proved, self._contradictions = 0.0, 0
            self.rate = self.rate * _SLOWER if self.rate > _SLOWEST else math.inf
        if not self._let_in or (elapsed < _LONG_ENOUGH_S and self.rate < math.inf):
            return
        measured = self._let_in / max(elapsed, _SHORTEST_S)
        self._contradictions = self._contradictions + 1 if measured < _CONTRADICTS * self._proved else 0
        # The first measurement holds what the server had saved up for us: a pace for now, and no proof.
        if self._epoch:
            self._proved = max(measured, _FORGETS * self._proved)
        self.rate = _BELOW * max(measured, self._proved) if self._contradictions < _FUTILE else math.inf
        self._since, self._let_in, self._epoch = busy_s, 0, self._epoch + 1
