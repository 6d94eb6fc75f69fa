"""`figa push DIR HUB_ID`: send a published data set to the Hugging Face Hub, in one commit.

Sends what the manifest names, the card, the report, and the manifest without the folders of this machine: never work/, with
its journal of calls. The token is that of HF_TOKEN or `hf auth login`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.cli.arguments import add_json
from pipeline.storage.location import local_argument
from pipeline.text import one_line

_ATTEMPTS = 4
_PAUSE_S = 1.0
_BESIDE = ("manifest.json", "README.md", "report.html")


INTERRUPTED = "the Hub shows a commit whole or not at all: run the same command again"
EPILOG = """\
example:
  figa push out/hh-rlhf owner/name --private

exit codes: 0 sent · 1 the Hub failed · 2 bad usage, or files that are not as the manifest says · 130 interrupted
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("dir", metavar="DIR", type=local_argument, help="output folder of a finished run")
    p.add_argument("hub_id", metavar="HUB_ID", help="owner/name; made if it isn't there")
    p.add_argument("--private", action="store_true", help="a new data set is private")
    p.add_argument("--dry-run", action="store_true", help="check the files and say what would be sent")
    add_json(p)


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    names = checked_files(arguments.dir)
    total = sum((arguments.dir / name).stat().st_size for name in names)
    print(f"{len(names)} files, {total / 1e6:.1f} MB, all as the manifest says")
    url = None
    if arguments.dry_run:
        print("\n".join(names))
        print(f"nothing was sent; without --dry-run they go to {arguments.hub_id}")
    else:
        url = _send(arguments.dir, names, arguments.hub_id, private=arguments.private)
        print(f"sent  {url}")
    return 0, {"files": names, "bytes": total, "url": url}


def checked_files(root: Path) -> list[str]:
    """What would be sent, relative to the folder. Raises StorageError when anything isn't as the manifest says."""
    from pipeline.cli.verify import verify
    from pipeline.dataset.reader import read_manifest
    from pipeline.errors import StorageError

    found = verify(root, labels=False)
    if found.count:
        raise StorageError(f"{root}: {found.count} problems, the first: {found.problems[0]}; nothing was sent")
    content: dict[str, Any] = read_manifest(root)
    named = [entry["path"] for key in ("files", "rejected_files") for entry in content[key]]
    return [*(name for name in _BESIDE if (root / name).is_file()), *named]


def _send(root: Path, names: list[str], hub_id: str, *, private: bool) -> str:
    """Make the repository, if need be, and commit; returns the commit's address. What passes is tried again: the Hub takes
    files that it has for sent, and shows a commit whole or not at all.
    """
    from huggingface_hub import errors as hub
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

    from pipeline.errors import CurationError, UsageError

    attempts = Retrying(
        retry=retry_if_exception(_passing),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential(_PAUSE_S, max=30),
        reraise=True,
    )
    try:
        return attempts(_commit, root, names, hub_id, private=private)
    except hub.HFValidationError as error:
        raise UsageError(f"{hub_id}: not a Hub id ({one_line(error)}); expected owner/name") from None
    except hub.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UsageError(
                f"{hub_id}: the Hub refuses ({status}); set HF_TOKEN to a token that may write there"
            ) from None
        raise CurationError(f"{hub_id}: the Hub answered {one_line(error)}; run the same command again") from None
    except (_http_error(), OSError) as error:
        raise CurationError(
            f"{hub_id}: the Hub can't be reached ({one_line(error)}); run the same command again"
        ) from None


def _passing(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment: lost connections, limits, another's commit, a server's trouble."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 409, 412, 429) or error.response.status_code >= 500
    return isinstance(error, _http_error())


def _http_error() -> type[Exception]:
    """The base of all errors of the Hub's HTTP library: which library that is differs between the Hub's versions."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _commit(root: Path, names: list[str], hub_id: str, *, private: bool) -> str:
    from huggingface_hub import HfApi

    from pipeline.errors import UsageError

    api = HfApi()
    api.create_repo(hub_id, repo_type="dataset", private=private or None, exist_ok=True)
    if private and not api.repo_info(hub_id, repo_type="dataset").private:
        raise UsageError(f"{hub_id}: is there already, and public; nothing was sent. Make it private, or name another")
    with TemporaryDirectory() as folder:
        _lay_out(root, names, Path(folder))
        commit = api.upload_folder(
            repo_id=hub_id,
            repo_type="dataset",
            folder_path=folder,
            # Files of an earlier push that this manifest doesn't name would be read with it.
            delete_patterns=["data/*.parquet", "rejected/*.parquet"],
            commit_message="Publish by figa-pipeline",
        )
    return str(commit.commit_url)


def _lay_out(root: Path, names: list[str], folder: Path) -> None:
    """What is sent: links to the files, and a manifest that names no folder of this machine."""
    from pipeline.dataset import manifest
    from pipeline.dataset.reader import read_manifest
    from pipeline.text import redact_paths

    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name != manifest.NAME:
            (folder / name).symlink_to((root / name).absolute())
    manifest.write(folder, redact_paths(read_manifest(root)))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
