"""`--source demo`: no model, no network, and a data set that says who wrote it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import open_dataset
from pipeline.cli.main import main
from pipeline.config.loading import load_config
from pipeline.config.settings import REASONS, CurationConfig
from pipeline.curate import Outcome
from pipeline.dataset.verify import verify
from pipeline.run.status import folder_state
from pipeline.sources.adapters.demo import POLICY, REVISER, SYSTEM
from tests.conftest import ROOT
from tests.sources.rejects import path
from tests.test_run import run


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("nothing is fetched")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.models.local.download.fetch", refuse)
        patch.setattr("socket.socket.connect", refuse)
        patch.setenv("FIGA_CACHE", str(tmp_path_factory.mktemp("empty")))
        flags = {"source.name": "demo", "output.dir": str(tmp_path_factory.mktemp("demo") / "out")}
        # It is not the policy of this run, which asks none, that the labels are for.
        return run(load_config(flags=flags | {"policy.model": "openai/another"}))


def test_all_pairs_are_published_with_rewards_and_labels(demo: Outcome) -> None:
    rows = demo.manifest["rows"]
    assert (demo.calls, rows["rejected"]) == (0, 0) and rows["published"] >= 64
    assert [step["stage"] for step in demo.manifest["funnel"]] == ["source", "score", "filter", "label"]
    table = open_dataset(demo.out).to_table()
    assert set(table["diagnosis"].to_pylist()) == set(REASONS)
    for column in ("critique", "reward_reference", "reward_initial", "reward_revised"):
        assert table[column].null_count == 0
    report = verify(demo.out)
    assert (report.problems, report.notes, report.labelled) == ([], [], rows["published"])
    assert folder_state(demo.out).rerun == []


def test_it_is_called_what_it_is_everywhere(demo: Outcome) -> None:
    said = demo.manifest["models"]
    assert (said["policy"], said["reviser"]) == ({"name": POLICY}, {"name": REVISER})
    table = open_dataset(demo.out).to_table(["policy_model", "reviser_model"])
    assert set(table["policy_model"].to_pylist()) == {POLICY} and set(table["reviser_model"].to_pylist()) == {REVISER}
    assert demo.manifest["labels"]["tokenizer"] == POLICY and demo.manifest["labels"]["system"] == SYSTEM
    for name in ("README.md", "report.html"):
        text = (demo.out / name).read_text("utf-8")
        assert "written by an AI assistant for this project" in text and REVISER in text
        assert f"{POLICY}, fingerprint" in text


def test_critiques_are_shown(demo: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    row = open_dataset(demo.out).to_table().slice(5, 1).to_pylist()[0]
    assert row["critique"] in (demo.out / "report.html").read_text("utf-8").replace("\\u0026", "&")
    assert main(["show", str(demo.out), "--row", row["id"]]) == 0
    assert f"\n{row['critique']}\n" in capsys.readouterr().out
    word = row["critique"].split()[-1]
    assert main(["show", str(demo.out), "--where", f'critique~"{word}"', "--limit", "0"]) == 0
    assert row["id"] in capsys.readouterr().out


def test_a_published_demo_reads_back_with_its_critiques(demo: Outcome, tiny_tokenizer: Path, tmp_path: Path) -> None:
    flags = {"source.name": "parquet", "source.input": str(demo.out / "data"), "output.dir": str(tmp_path / "again")}
    again = run(load_config(flags=flags | {"labels.tokenizer": str(tiny_tokenizer)}))
    names = ["messages", "revised", "diagnosis", "critique"]
    tables = [open_dataset(outcome.out).to_table(names).to_pylist() for outcome in (demo, again)]
    kept = [row for row in tables[0] if row in tables[1]]
    assert len(tables[1]) >= 40 and kept == tables[1], "the tiny tokenizer finds some too different"


def test_pairs_of_any_source_are_scored_on_request(settings: Callable[..., CurationConfig]) -> None:
    values = {"source__name": "spa", "source__input": str(path("spa")), "filter__min_reward_gain": None}
    plain = run(settings("plain", **values))
    scored = run(settings("scored", **values, source__enters_at="score"))
    assert plain.manifest["rows"] == scored.manifest["rows"], "without a gate"
    table = pq.read_table(scored.out / "data")
    assert table["reward_revised"].null_count == 0 and table["critique"].null_count == table.num_rows
    gains = [row["reward_revised"] - row["reward_initial"] for row in table.to_pylist()]
    assert min(gains) < 0
    text = (scored.out / "report.html").read_text("utf-8")
    assert "accepted at any gain" in text


@pytest.mark.parametrize("example", ["torch_loop", "trl", "trl per-token"])
def test_the_examples_train_on_it(demo: Outcome, tmp_path: Path, example: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("trl")
    folder, _, trainer = example.partition(" ")
    module = importlib.import_module(f"examples.{folder}.train")
    torch.set_num_threads(1)
    own = ["--epochs", "2"] if folder == "torch_loop" else ["--steps", "10", "--out", str(tmp_path)]
    losses = module.main(["--data", str(demo.out), *own, *(["--trainer", trainer] if trainer else [])])
    assert losses[1] < losses[0]


def test_the_configs_name_settings_and_columns_that_their_programs_document(demo: Outcome, tmp_path: Path) -> None:
    """Neither installs beside ours; tests/exports/test_real_trainers.py trains with them where they are installed."""
    axolotl = yaml.safe_load((ROOT / "examples" / "axolotl" / "config.yaml").read_text("utf-8"))
    (entry,) = axolotl["datasets"]
    assert entry["type"] is None and entry["ds_type"] == "parquet" and axolotl["excess_length_strategy"] == "raise"
    assert Path(axolotl["dataset_prepared_path"]).parent == Path(entry["path"]).parent, "no older export is read again"
    command = ["export", str(demo.out), "--out"]
    assert main([*command, str(tmp_path / "axolotl"), "--format", "axolotl", "--variant", "edits"]) == 0
    table = pq.read_table(tmp_path / "axolotl" / Path(entry["path"]).name)
    assert table.column_names == ["input_ids", "attention_mask", "labels"]
    published = open_dataset(demo.out).to_table().to_pylist()
    for row, pair in zip(table.to_pylist(), published, strict=True):
        weighted = zip(pair["revised_input_ids"], pair["revised_weights"], strict=True)
        assert row["input_ids"] == pair["revised_input_ids"] and set(row["attention_mask"]) == {1}
        assert row["labels"] == [token if weight > 0 else -100 for token, weight in weighted]
        assert row["labels"][-1] != -100, "the EOS is trained on"

    assert main([*command, str(tmp_path / "lf"), "--format", "llamafactory", "--variant", "tokenized"]) == 0
    importlib.import_module("examples.llamafactory.prepare").main(str(tmp_path / "lf"))
    config = yaml.safe_load((ROOT / "examples" / "llamafactory" / "dpo.yaml").read_text("utf-8"))
    assert config["stage"] == "dpo" and (config["dataset"], config["template"]) == ("figa_pairs", "empty")
    loaded = datasets.load_from_disk(str(tmp_path / "lf" / Path(config["tokenized_path"]).name))["train"]
    for row, pair in zip(loaded, published, strict=True):
        for name, side in (("chosen", "revised"), ("rejected", "initial")):
            assert row[f"{name}_input_ids"] == pair[f"{side}_input_ids"]
            assert row[f"{name}_labels"] == pair[f"{side}_labels"]
            assert len(row[f"{name}_attention_mask"]) == len(row[f"{name}_labels"])
        assert row["images"] is row["videos"] is row["audios"] is None
