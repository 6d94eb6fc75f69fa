"""The loop: a published data set is verified, and a verified one trained on, each started by the other's event."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.train import TRAINED
from pipeline import __version__
from pipeline.config.settings import CurationConfig
from tests.conftest import ROOT
from tests.flows.server import PREFECT, ask, process, run, wait_for
from tests.flows.test_upkeep import ended, submit

_FILE = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))


@pytest.mark.slow
def test_what_is_published_is_verified_and_trained_on(
    settings: Callable[..., CurationConfig], worker: dict[str, str], tiny_tokenizer: Path, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate")
    from tests.training.tiny import tiny_llama

    model = tmp_path / "model"
    tiny_llama().save_pretrained(model)
    shutil.copytree(tiny_tokenizer, model, dirs_exist_ok=True)
    (train,) = (each for each in _FILE["deployments"] if each["name"] == "train")
    assert [trigger["enabled"] for trigger in train["triggers"]] == [False]
    train["triggers"][0]["enabled"] = True
    train["parameters"] |= {"model": str(model), "out": str(tmp_path / "trained"), "options": ["--max-steps=1"]}
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(_FILE | {"deployments": [train]}), "utf-8")
    deploy = [*PREFECT, "--no-prompt", "deploy", "--name", "train"]
    run([*deploy, "--prefect-file", str(tmp_path / "prefect.yaml")], worker)
    try:
        config = settings("loop")
        first = submit(worker, "hh-rlhf", config=config.model_dump(mode="json"))
        assert ended(worker, first)["state"]["type"] == "COMPLETED"
        digest = hashlib.sha256((config.out / "manifest.json").read_bytes()).hexdigest()
        # Other tests publish on this server too, and each publication is trained on.
        of_this = lambda: [e["payload"] for e in events(worker, TRAINED) if e["payload"]["manifest_sha256"] == digest]  # noqa: E731
        trained = wait_for(of_this, 300)[0]
    finally:
        run(deploy, worker)
    assert trained["trained"] > 0
    manifest = json.loads((config.out / "manifest.json").read_text("utf-8"))
    summary = json.loads((Path(trained["out"]) / "training.json").read_text("utf-8"))
    assert manifest["run_digest"] in json.dumps(summary["lineage"])
    # Its manifest is not what was verified any more: published again in the meantime, say.
    late = submit(worker, "train", data_dir=str(config.out), manifest_sha256="0" * 64)
    assert "published again" in ended(worker, late)["state"]["message"]


def events(environment: dict[str, str], name: str) -> list[dict[str, Any]]:
    return list(ask(environment, "events/filter", filter={"event": {"name": [name]}})["events"])


def test_a_publication_is_an_asset_with_its_figures(
    settings: Callable[..., CurationConfig], prefect: dict[str, str]
) -> None:
    from tests.flows.test_life import a_finished_run

    out, _ = a_finished_run(settings, prefect)
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    materialised = "prefect.asset.materialization.succeeded"

    def look() -> list[dict[str, Any]]:
        return [e for e in events(prefect, materialised) if e["resource"]["prefect.resource.id"] == f"file://{out}"]

    payload = wait_for(look)[0]["payload"]
    assert (payload["digest"], payload["publication"]) == (manifest["digest"], 1)
    assert payload["pairs published"] == str(manifest["rows"]["published"])
    assert payload["median reward gain"].startswith("+") and "paid for models" in payload


def test_deployments_have_version_and_tags_and_one_run_per_folder() -> None:
    assert all((each["version"], each["tags"]) == (__version__, ["figa"]) for each in _FILE["deployments"])
    one = {"limit": 1, "collision_strategy": "ENQUEUE"}
    writing = [each for each in _FILE["deployments"] if each["entrypoint"].endswith(("curate", "train", "rounds"))]
    assert len(writing) == 8 and all(each["concurrency_limit"] == one for each in writing)


@pytest.mark.slow
def test_one_process_serves_the_deployments(
    settings: Callable[..., CurationConfig], tmp_path: Path, published: Path
) -> None:
    import sys

    from tests.flows.server import prefect_server

    with prefect_server(tmp_path / "home") as (environment, _):
        shutil.copy(ROOT / "prefect.yaml", tmp_path)
        with process([sys.executable, "-m", "flows.serve"], environment, tmp_path / "serve.log"):
            wait_for(lambda: len(ask(environment, "deployments/filter")) == len(_FILE["deployments"]))
            assert ended(environment, submit(environment, "verify", data_dir=str(published)))["state"]["type"] == (
                "COMPLETED"
            ), (tmp_path / "serve.log").read_text()
