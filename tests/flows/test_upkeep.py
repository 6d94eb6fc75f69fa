"""The deployments `relabel` and `verify`, on a worker."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.dataset.reader import read_manifest
from tests.conftest import Silent
from tests.flows.server import ask, told_of, wait_for


def submit(environment: dict[str, str], name: str, **parameters: Any) -> str:
    (deployment,) = ask(environment, "deployments/filter", deployments={"name": {"any_": [name]}})
    return str(ask(environment, f"deployments/{deployment['id']}/create_flow_run", parameters=parameters)["id"])


def ended(environment: dict[str, str], flow_run: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        (found,) = ask(environment, "flow_runs/filter", flow_runs={"id": {"any_": [flow_run]}})
        return found if found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED") else None

    return wait_for(look)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_published_set_is_relabelled_and_checked_again(
    settings: Callable[..., CurationConfig], worker: dict[str, str]
) -> None:
    out = curate(settings("plain"), in_threads, Silent()).out
    words, damaged = out.with_name("words"), out.with_name("damaged")
    shutil.copytree(out, damaged)
    file = next(damaged.glob("data/*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    relabelled = submit(worker, "relabel", data_dir=str(out), out=str(words), assignments=["labels.granularity=word"])
    sound, unsound = (submit(worker, "verify", data_dir=str(folder)) for folder in (out, damaged))
    assert ended(worker, sound)["state"]["type"] == "COMPLETED"
    state = ended(worker, unsound)["state"]
    assert state["type"] == "FAILED" and file.name in state["message"]
    # Prefect itself keeps the exception of a failed run as an artifact without a key.
    made = {
        a["key"]: a["data"] for a in ask(worker, "artifacts/filter", artifacts={"flow_run_id": {"any_": [unsound]}})
    }
    assert file.name in json.dumps(made["figa-problems"])
    run = ended(worker, relabelled)
    assert (run["name"], run["state"]["type"]) == (f"relabel-{out}", "COMPLETED")
    assert read_manifest(words)["labels"]["granularity"] == "word"
    assert told_of(worker, words)["published"] == read_manifest(words)["rows"]["published"]
