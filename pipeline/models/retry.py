"""How often a call is tried, how long is waited between, and when a provider that only fails ends the run."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from pipeline.errors import ProviderStopped, RowReject
from pipeline.models.event_loop import row_number
from pipeline.models.provider_errors import GO_ON, Transient, UselessAnswer, cause_of, describe

# After so many failures in a row on the provider's side, the rest would fail as well.
BREAKER = 12
# When so many rows are the first of a stage and all fail alike, the rows are not to blame.
FIRST_ROWS = 8
_backoff = wait_exponential_jitter(multiplier=0.5, max=30.0, jitter=1.0)


def retrying(attempts: int, patience_s: float = 0.0) -> AsyncRetrying:
    """Tries a coroutine function so many times while it raises Transient; raises what the last try raised.

    Tries of a server that is loading its model don't count: those are limited by `patience_s` seconds.
    """
    failed = 0

    def is_last(state: RetryCallState) -> bool:
        nonlocal failed
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Transient) and error.loading:
            return (state.seconds_since_start or 0.0) >= patience_s
        failed += 1
        return failed >= attempts

    return AsyncRetrying(stop=is_last, retry=retry_if_exception_type(Transient), wait=retry_wait, reraise=True)


def retry_wait(state: RetryCallState) -> float:
    """Seconds until the next try: the server's Retry-After and a little jitter, else exponential backoff."""
    error = state.outcome.exception() if state.outcome else None
    own = float(_backoff(state))
    # A Retry-After of 0, as of a date in the past, is none.
    return error.retry_after + 0.1 * own if isinstance(error, Transient) and error.retry_after else own


class _Start:
    """The first rows of a stage, until one is answered or two fail differently."""

    def __init__(self) -> None:
        self.over = False
        self.cause: str | None = None
        self.rows: set[int] = set()


class Breaker:
    """Ends a run whose calls fail for a cause that no row is to blame for.

    what: rows, or requests; check: what to check after a 404; answered_before: whether a stage had answers in an earlier run.
    """

    def __init__(self, name: str, what: str, check: str, answered_before: Callable[[str], bool]) -> None:
        self._name, self._what, self._check, self._answered_before = name, what, check, answered_before
        self._failures = 0
        self._last = ""
        self._starts: defaultdict[str, _Start] = defaultdict(_Start)
        # In this run or, by the journal, in an earlier one.
        self.answered = False
        # The server's reason for the last bad request.
        self.refusal = ""

    @contextmanager
    def watch(self, stage: str, **evidence: object) -> Iterator[None]:
        """Counts how a call with all its retries ends.

        Raises RowReject for it, retryable when the row is not to blame, or ProviderStopped after BREAKER failures in a row on
        the provider's side, or when the stage's FIRST_ROWS rows all failed alike.
        """
        try:
            yield
        except Transient as error:
            reject = RowReject(error.reason, model=self._name, error=str(error), **evidence).mark_retryable()
            self.failed_alike(stage, reject)
            self._fails(str(error))
            raise reject from None
        except UselessAnswer:
            # The provider works. Whether the answer is the row's last, the caller knows.
            self._works()
            raise
        except RowReject as reject:
            self.failed_alike(stage, reject)
            status, said = reject.evidence.get("status"), reject.evidence.get("error")
            # A 404 or a redirect is no row's fault: the model or the address is wrong. Any other reject shows that the
            # provider works, unless it is the page of a firewall, which may stop a row or everything.
            if status in (301, 302, 303, 307, 308, 404):
                self._fails(f"status {status}: {said} (check {self._check})")
                raise reject.mark_retryable() from None
            if reject.reason == "blocked":
                self._fails(f"status {status}: {said}")
                raise
            if reject.reason == "bad_request":
                self.refusal = f"status {status}: {said}"
            self._works()
            raise
        self._works()

    def started(self, stage: str) -> None:
        """The stage has an answer: whatever fails from now on may be a row's own fault."""
        self._starts[stage].over = True

    def failed_alike(self, stage: str, reject: RowReject) -> None:
        """Counts a row's failure. Raises ProviderStopped when the stage's FIRST_ROWS rows all failed so."""
        reject.evidence.setdefault("model", self._name)
        start, cause = self._starts[stage], cause_of(reject.reason, reject.evidence)
        if start.over or cause is None or start.cause not in (None, cause):
            start.over = True
            return
        start.cause = cause
        start.rows.add(row_number.get())
        if len(start.rows) < FIRST_ROWS:
            return
        start.over = self._answered_before(stage)
        if not start.over:
            what = f"the first {FIRST_ROWS} {self._what} of {stage} all failed alike"
            raise ProviderStopped(
                f"{self._name}: {what}: {describe(reject.reason, reject.evidence)}. {GO_ON}"
            ) from None

    def _works(self) -> None:
        self._failures, self.answered = 0, True

    def _fails(self, last: str) -> None:
        self._failures += 1
        self._last = last
        if self._failures >= BREAKER:
            raise self._stopped() from None

    def raise_if_all_failed(self) -> None:
        """At the end of a stage: raises ProviderStopped when every call failed, however few there were."""
        if self._failures and not self.answered:
            raise self._stopped()

    def _stopped(self) -> ProviderStopped:
        return ProviderStopped(
            f"{self._name}: {self._failures} {self._what} in a row failed, the last with: {self._last}. The run stops instead "
            "of rejecting the rest; run the same command again when the provider answers"
        )
