"""Everything this project raises on purpose.

    CurationError                exit 1   the run cannot go on
    ├── UsageError               exit 2   bad command line, setting or input, found before any paid call
    │   ├── ConfigError                   a setting
    │   └── InputError                    the source's data: names the file and, where there is one, the line
    ├── BudgetReached            exit 3   the money is spent; the same command with a higher budget goes on
    ├── ModelUnavailable                  a model can't be fetched or started here
    ├── ProviderStopped                   a provider refuses us as a whole (key, quota, outage): no use going on
    └── StorageError                      the output folder: not writable, full, damaged or in use
        └── StoreUnreachable     exit 2   a remote one: it doesn't answer, or refuses
    RowReject                             not an error: one row leaves the run, with a reason and evidence

A message says what, where, what was expected and what to do, in one line; the command line prints it without a traceback.
"""

from typing import Any, Self


class CurationError(Exception):
    """The run can't go on. Its text is written for the person at the terminal."""

    exit_code = 1


class UsageError(CurationError):
    """A mistake that the user can fix, noticed before any call."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, malformed or contradicts another."""


class InputError(UsageError):
    """The source's data is missing, unreadable or of another shape than its adapter expects."""


class BudgetReached(CurationError):
    """The next call could pass the budget. What was paid for is kept; the run is resumable."""

    exit_code = 3


class ModelUnavailable(CurationError):
    """A model can't be fetched, verified or started on this machine."""


class ProviderStopped(CurationError):
    """A provider rejects every call (authentication, quota, outage)."""


class StorageError(CurationError):
    """A file of the run can't be written or read, or isn't what its metadata says."""


class StoreUnreachable(StorageError):
    """A store behind a URL doesn't answer, or refuses the address or the credentials, before it answered once."""

    exit_code = 2


class RowReject(Exception):
    """One row leaves the run.

    reason: a short snake_case word that the funnel counts. evidence: JSON-serialisable values that let a reader see why.
    columns: what the row had gained when it left, e.g. the revised text. retryable: the provider was to blame, not the row, so
    the next run tries again.
    """

    def __init__(self, reason: str, **evidence: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.evidence = evidence
        self.columns: dict[str, Any] = {}
        self.retryable = False

    def with_columns(self, **columns: Any) -> Self:
        """The same reject with values for the columns of the reject ledger."""
        self.columns |= columns
        return self

    def copy_with(self, **evidence: Any) -> Self:
        """A reject of its own for another row, for the same reason, with more evidence."""
        # Subclasses are created with other arguments.
        other = type(self).__new__(type(self), *self.args)
        other.__dict__ |= self.__dict__ | {"evidence": self.evidence | evidence, "columns": dict(self.columns)}
        return other

    def mark_retryable(self) -> Self:
        """The same reject, for the next run to try again."""
        self.retryable = True
        return self
