"""`--source demo`: no model, no network, and a data set that says who wrote it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import open_dataset
from pipeline.cli.main import main
from pipeline.config.loading import load_config
from pipeline.config.settings import REASONS, CurationConfig
from pipeline.curate import Outcome
from pipeline.dataset.verify import verify
from pipeline.run.status import folder_state
from pipeline.sources.adapters.demo import POLICY, REVISER, SYSTEM
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


def test_the_example_trains_on_it(demo: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from tests.conftest import ROOT

    shutil.copy(ROOT / "examples" / "train_figa.py", tmp_path / "figa_example.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    import figa_example  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    losses = figa_example.main(["--data", str(demo.out), "--epochs", "2"])
    assert losses[1] < losses[0]
