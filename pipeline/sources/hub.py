"""The Hugging Face Hub: one commit of a data set, streamed through `datasets`."""

import os
from collections.abc import Iterator

from pipeline.errors import InputError
from pipeline.sources.row import RawRow
from pipeline.text import describe_error

TIMEOUT_S = 5.0


class HubUnreachable(Exception):
    """The Hub gave no usable answer; the text says why, in a few words."""


def pin(hub_id: str, revision: str | None) -> tuple[str, str | None]:
    """The commit that the revision (or the default branch) is at now, and the licence that the data set's card states.

    HubUnreachable when the Hub doesn't answer; InputError when it answers that there is no such thing for us.
    """
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(name, "").strip().upper() in {"1", "ON", "YES", "TRUE"}:
            raise HubUnreachable(f"{name} is set")
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub

    try:
        info = HfApi().dataset_info(hub_id, revision=revision, timeout=TIMEOUT_S)
    except hub.RevisionNotFoundError as error:
        raise InputError(f"Hub data set {hub_id}: no revision {revision!r}; give its commit, branch or tag") from error
    except hub.GatedRepoError as error:
        raise InputError(f"Hub data set {hub_id} is gated; accept its terms at its page, then set HF_TOKEN") from error
    except hub.RepositoryNotFoundError as error:
        raise InputError(
            f"no Hub data set {hub_id} (if it is private, set HF_TOKEN), nor a file of that name"
        ) from error
    except hub.HFValidationError as error:
        raise InputError(f"{hub_id!r} is neither a file, a folder nor a Hub id (owner/name)") from error
    except Exception as error:  # the HTTP library's own errors; which library that is differs between versions
        raise HubUnreachable(describe_error(error)) from error
    if not info.sha:
        raise HubUnreachable("its answer names no commit")
    licence = info.card_data.get("license") if info.card_data else None
    return info.sha, licence if isinstance(licence, str) else None


def rows(hub_id: str, sha: str, split: str) -> Iterator[tuple[int, RawRow]]:
    """(number from 1, row) of one split of one commit, in its order; InputError says how many came before a failure."""
    import datasets

    count = 0
    try:
        for row in datasets.load_dataset(hub_id, split=split, revision=sha, streaming=True):
            yield count + 1, row
            count += 1
    except Exception as error:
        raise InputError(
            f"Hub data set {hub_id} at {sha[:12]}, split {split!r}: {describe_error(error)}; {count} rows were read before "
            "that. Check the split and try again, or download the files and give their folder as --input"
        ) from error
