"""Send a published data set to the Hugging Face Hub, in one commit.

The files that the manifest names, card and report included, and the manifest without this machine's folders; no symbolic link.
"""

from pathlib import Path, PurePath

from pipeline.dataset import manifest
from pipeline.dataset.reader import read_manifest
from pipeline.dataset.verify import Progress, no_progress, verify
from pipeline.errors import CurationError, StorageError, UsageError
from pipeline.storage.ours import PUBLISHED
from pipeline.text import one_line, redact_paths

_ATTEMPTS = 4
_PAUSE_S = 1.0
# What is sent beside the manifest, by its keys.
_NAMED = ("documents", "files", "rejected_files")


def checked_files(root: Path, progress: Progress = no_progress) -> list[str]:
    """What would be sent, relative to the folder. Raises StorageError when anything isn't as the manifest says."""
    result = verify(root, labels=False, progress=progress)
    if result.count:
        raise StorageError(f"{root}: {result.count} problems, the first: {result.problems[0]}; nothing was sent")
    content = read_manifest(root)
    names = [manifest.NAME, *(entry.name for key in _NAMED for entry in manifest.file_entries(root, content, key))]
    for name in names:
        for path in (root / name, *(root / name).parents):
            if path != root and path.is_relative_to(root) and path.is_symlink():
                raise StorageError(f"{path}: is a symbolic link, to {path.readlink()}; nothing was sent")
    return names


def check_id(hub_id: str) -> None:
    """Raises UsageError for what is no Hub id."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(hub_id)
    except HFValidationError as error:
        raise UsageError(f"{hub_id}: not a Hub id ({one_line(error)}); expected owner/name") from None


def push(root: Path, names: list[str], hub_id: str, *, private: bool) -> str:
    """Create the repository if need be, and commit; returns the commit's address.

    Temporary failures are retried: the Hub skips files that it already has, and shows a commit whole or not at all.
    Raises UsageError for a bad token, CurationError when the Hub fails or can't be reached.
    """
    from huggingface_hub import errors as hub
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

    attempts = Retrying(
        retry=retry_if_exception(_is_temporary),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential(_PAUSE_S, max=30),
        reraise=True,
    )
    try:
        return attempts(_commit, root, names, hub_id, private=private)
    except hub.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            what = f"the Hub refuses ({status}); set HF_TOKEN to a token that may write there"
            raise UsageError(f"{hub_id}: {what}") from None
        raise CurationError(f"{hub_id}: the Hub answered {one_line(error)}; run the same command again") from None
    except (_http_error(), OSError) as error:
        what = f"the Hub can't be reached ({one_line(error)}); run the same command again"
        raise CurationError(f"{hub_id}: {what}") from None


def _is_temporary(error: BaseException) -> bool:
    """Whether the same request may succeed soon: lost connections, limits, a concurrent commit, server errors."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 409, 412, 429) or error.response.status_code >= 500
    return isinstance(error, _http_error())


def _http_error() -> type[Exception]:
    """The base of all errors of the Hub's HTTP library, which differs between versions of huggingface_hub."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _commit(root: Path, names: list[str], hub_id: str, *, private: bool) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    api.create_repo(hub_id, repo_type="dataset", private=private or None, exist_ok=True)
    if private and not api.repo_info(hub_id, repo_type="dataset").private:
        raise UsageError(f"{hub_id}: is there already, and public; nothing was sent. Make it private, or name another")
    content = redact_paths(read_manifest(root))
    redacted = manifest.as_text({**content, "digest": manifest.digest_of(content)}).encode()
    added = [CommitOperationAdd(name, str(root / name)) for name in names if name != manifest.NAME]
    hashes = {entry["path"]: entry["sha256"] for key in _NAMED for entry in content.get(key, ())}
    for operation in added:
        # What is sent was hashed just now, for the Hub.
        if operation.upload_info.sha256.hex() != hashes[operation.path_in_repo]:
            raise StorageError(f"{root / operation.path_in_repo}: was changed meanwhile; nothing was sent")
    # Files of an earlier push that this manifest doesn't name would be read with it.
    old = (name for name in api.list_repo_files(hub_id, repo_type="dataset") if name not in names)
    folders = ("data/", "rejected/")
    removed = [CommitOperationDelete(n) for n in old if n.startswith(folders) and PUBLISHED.fullmatch(PurePath(n).name)]
    # Not upload_folder, which divides many files among several commits.
    commit = api.create_commit(
        hub_id,
        [CommitOperationAdd(manifest.NAME, redacted), *added, *removed],
        commit_message="Publish by figa-pipeline",
        repo_type="dataset",
    )
    return str(commit.commit_url)
