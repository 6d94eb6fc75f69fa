"""How often a call is tried, how long is waited between, and when a provider that only fails ends the run."""

from collections.abc import Iterator
from contextlib import contextmanager

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from pipeline.errors import ProviderStopped, RowReject
from pipeline.models.provider_errors import Transient

# After so many failures in a row on the provider's side, the rest would fail as well.
BREAKER = 12
_backoff = wait_exponential_jitter(multiplier=0.5, max=30.0, jitter=1.0)


def retrying(attempts: int) -> AsyncRetrying:
    """Tries a coroutine function so many times while it raises Transient; raises what the last try raised."""
    return AsyncRetrying(
        stop=stop_after_attempt(attempts), retry=retry_if_exception_type(Transient), wait=retry_wait, reraise=True
    )


def retry_wait(state: RetryCallState) -> float:
    """Seconds until the next try: the server's Retry-After and a little jitter, else exponential backoff."""
    error = state.outcome.exception() if state.outcome else None
    own = float(_backoff(state))
    # A Retry-After of 0, as of a date in the past, is none.
    return error.retry_after + 0.1 * own if isinstance(error, Transient) and error.retry_after else own


class Breaker:
    """Counts failures in a row on the provider's side. what: rows, or requests; check: what to check after a 404."""

    def __init__(self, name: str, what: str, check: str) -> None:
        self._name, self._what, self._check = name, what, check
        self._failures = 0
        self._last = ""
        self._answered = False
        # The server's reason for the last bad request.
        self.refusal = ""

    @contextmanager
    def watch(self, **evidence: object) -> Iterator[None]:
        """Counts how a call with all its retries ends.

        Raises RowReject for it, retryable when the row is not to blame, or ProviderStopped after BREAKER failures in a row.
        """
        try:
            yield
        except Transient as error:
            self._fails(str(error))
            raise RowReject(error.reason, model=self._name, error=str(error), **evidence).mark_retryable() from None
        except RowReject as reject:
            # A 404 is no row's fault: the model or the address is wrong. Any other reject shows that the provider works.
            if reject.evidence.get("status") == 404:
                self._fails(f"status 404: {reject.evidence['error']} (check {self._check})")
                raise reject.mark_retryable() from None
            if reject.reason == "bad_request":
                self.refusal = f"status {reject.evidence['status']}: {reject.evidence['error']}"
            self._works()
            raise
        self._works()

    def _works(self) -> None:
        self._failures, self._answered = 0, True

    def worked_before(self) -> None:
        """It has answered in an earlier run."""
        self._answered = True

    def _fails(self, last: str) -> None:
        self._failures += 1
        self._last = last
        if self._failures >= BREAKER:
            raise self._stopped() from None

    def raise_if_all_failed(self) -> None:
        """At the end of a stage: raises ProviderStopped when every call failed, however few there were."""
        if self._failures and not self._answered:
            raise self._stopped()

    def _stopped(self) -> ProviderStopped:
        return ProviderStopped(
            f"{self._name}: {self._failures} {self._what} in a row failed, the last with: {self._last}. The run stops instead "
            "of rejecting the rest; run the same command again when the provider answers"
        )
