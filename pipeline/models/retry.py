"""How often a call is tried, how long is waited between, and when a provider that only fails ends the run."""

from __future__ import annotations

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from pipeline.errors import ProviderStopped
from pipeline.models.provider_errors import Transient

# After so many in a row have failed on the provider's side, the rest would fail as well.
BREAKER = 12
LONGEST_WAIT_S = 120.0
_backoff = wait_exponential_jitter(multiplier=0.5, max=30.0, jitter=1.0)


def retrying(attempts: int) -> AsyncRetrying:
    """Tries a coroutine function so many times while it raises Transient; raises what the last try raised."""
    return AsyncRetrying(
        stop=stop_after_attempt(attempts), retry=retry_if_exception_type(Transient), wait=retry_wait, reraise=True
    )


def retry_wait(state: RetryCallState) -> float:
    """Seconds until the next try: what the server asked for, else longer each time."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, Transient) else None
    own = float(_backoff(state))
    # A server's absurd wish (hours) is capped; a little jitter keeps the crowd from returning at once. Its "now" is no wish.
    return min(asked, LONGEST_WAIT_S) + 0.1 * own if asked else own


class Breaker:
    """Counts what fails in a row on the provider's side. what: rows, or requests."""

    def __init__(self, name: str, what: str) -> None:
        self._name, self._what = name, what
        self._failures = 0
        self._last = ""
        self._heard = False

    def works(self) -> None:
        """The provider has answered, be it with a refusal."""
        self._failures, self._heard = 0, True

    def heard(self) -> None:
        """It has answered in an earlier run."""
        self._heard = True

    def fails(self, last: str) -> None:
        """One more failed. Raises ProviderStopped when the rest would as well."""
        self._failures += 1
        self._last = last
        if self._failures >= BREAKER:
            raise self._stopped() from None

    def insist(self) -> None:
        """At the end of a stage: raises ProviderStopped when all have failed, however few."""
        if self._failures and not self._heard:
            raise self._stopped()

    def _stopped(self) -> ProviderStopped:
        return ProviderStopped(
            f"{self._name}: {self._failures} {self._what} in a row failed, the last with: {self._last}. The run stops instead "
            "of rejecting the rest; run the same command again when the provider answers"
        )
