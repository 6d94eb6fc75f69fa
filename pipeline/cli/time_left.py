"""How long a run of embedded models will still take, from its beginning on."""

import time
from collections.abc import Mapping

from pipeline.config.settings import CurationConfig
from pipeline.models.factory import calls_at_a_time
from pipeline.run.estimate import selected_share
from pipeline.run.progress import Counts

# Work on a row, in drafts: a revision is several answers, a judgement two prompts and no answer.
_REVISION, _JUDGEMENT = 3.5, 1.5
# The share of revisions that reach the judge, and seconds of one core that a draft takes, until the run knows better.
_JUDGED, _DRAFT_S = 0.4, 6.0


class TimeLeft:
    """Counts drafts, and revisions and judgements as so many drafts. `text` is empty where models are not embedded."""

    def __init__(self, config: CurationConfig) -> None:
        local = all(settings.model.startswith("local/") for settings in (config.policy, config.reviser))
        self._known = config.needs_generation and local
        self._config = config
        self._began: float | None = None
        self._before = 0.0

    def text(self, counts: Mapping[str, Counts]) -> str:
        """Minutes left in all, or "" when nothing is known."""
        sample = counts.get("sample")
        if not self._known or not sample or not sample.total:
            return ""
        done, total = self._work(counts, sample.total)
        now = time.monotonic()
        if self._began is None:
            # What an earlier run did cost this one nothing.
            self._began, self._before = now, done
        mine, seconds = done - self._before, now - self._began
        rate = _DRAFT_S / calls_at_a_time(self._config.policy)
        if mine >= 2:
            rate = seconds / mine
        minutes = rate * max(0.0, total - done) / 60
        return f"about {max(1, round(minutes))} min left" if total > done else ""

    def _work(self, counts: Mapping[str, Counts], rows: int) -> tuple[float, float]:
        """What is done and what there is to do, in drafts."""
        selected = counts["select"].done - counts["select"].rejected if _finished(counts, "select") else None
        revisions = selected if selected is not None else rows * selected_share(self._config)
        revise, judged = counts.get("revise", Counts()), counts.get("filter", Counts())
        judgements = judged.total if _finished(counts, "revise") else revisions * _JUDGED
        judge = _JUDGEMENT if self._config.judge else 0.0
        done = counts["sample"].done + _REVISION * revise.done + judge * judged.done
        return done, rows + _REVISION * revisions + judge * judgements


def _finished(counts: Mapping[str, Counts], stage: str) -> bool:
    return stage in counts and counts[stage].total > 0 and counts[stage].done == counts[stage].total
