"""A piece of work as a Prefect task in the flow's own process, and the asset that a publication is."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect import task
from prefect.assets import Asset, add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from pipeline.dataset import facts
from pipeline.dataset.measures import files_of, measure
from pipeline.errors import CurationError
from pipeline.storage.remote import RemotePath

T = TypeVar("T")


def failed(error: BaseException) -> State[Any]:
    """A state, not an exception: its message says all, and Prefect would log a page of traceback."""
    return Failed(message=str(error) or "stopped with its run", data=error)


def as_task(name: str, action: Callable[[], T], after: Sequence[Any] = (), out: Path | None = None) -> tuple[T, Any]:
    """Run `action` as a task that stands behind those of `after`; returns its result, and what to stand behind it with.

    out: the folder that the task publishes, an asset whose metadata is its result: a manifest. Raises as `action` does.
    """

    def run() -> Any:
        try:
            result = action()
        except CurationError as error:
            return failed(error)
        if out is not None:
            add_asset_metadata(key_of(out), _describe(out, cast("dict[str, Any]", result)))
        return result

    options: Any = {"name": name, "task_run_name": name, "cache_policy": NO_CACHE, "persist_result": False}
    step = task(run, **options) if out is None else materialize(Asset(key=key_of(out)), by="figa", **options)(run)
    state = step(wait_for=after, return_state=True)
    return cast("T", state.result()), state


def key_of(out: Path) -> str:
    """The asset of an output folder: its URL, without the characters that a key may not have."""
    url = str(out) if isinstance(out, RemotePath) else f"file://{out.resolve()}"
    return re.sub(r"""[\s#?&%"'<>\[\]{}|\\^`]""", "_", url)[:512]


def _describe(out: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What an asset's page shows of a publication: its digest, and the report's figures."""
    figures = facts.tiles(manifest, measure(files_of(out, manifest)))
    return {"digest": manifest["digest"], "publication": manifest["publication"], **dict(figures)}
