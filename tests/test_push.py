"""Pushing to a loopback Hub: what is sent, what is not, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.cli.main import main
from pipeline.dataset import manifest
from pipeline.dataset.reader import read_manifest
from tests import pairs
from tests.conftest import ROOT, child_environment
from tests.push_server import PushHub

REPO = "somebody/pairs"


@pytest.fixture
def out(tiny_tokenizer: Path, tmp_path: Path) -> Path:
    made = pairs.data_set(tmp_path / "out", tiny_tokenizer, 20, rows_per_file=10)
    (made / "work").mkdir()
    (made / "work" / "journal.db").write_bytes(b"what was paid for")
    (made / "notes.txt").write_text("mine")
    return made


def push(out: Path, url: str, *arguments: str, token: str = "hf_right") -> subprocess.CompletedProcess[str]:
    # The Hub's address is read when its client is imported.
    environment = child_environment(
        HF_ENDPOINT=url, HF_TOKEN=token, HF_HUB_DISABLE_XET="1", HF_HUB_OFFLINE="0", HF_HUB_DISABLE_TELEMETRY="1"
    )
    command = [sys.executable, "-m", "pipeline", "push", str(out), REPO, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60, check=False)


def test_sends_what_the_manifest_names_and_nothing_else(out: Path) -> None:
    old = {"data/train-00000-of-00009.parquet": b"old", "LICENSE": b"kept"}
    with PushHub(REPO, dict(old), "hf_right") as hub:
        done = push(out, hub.url, "--private")
        assert done.returncode == 0, done.stderr
        assert f"sent  {hub.url}/datasets/{REPO}/commit/" in done.stdout
    names = {
        "manifest.json",
        "README.md",
        "croissant.json",
        "report.html",
        *(f"data/train-0000{n}-of-00002.parquet" for n in (0, 1)),
        "rejected/sample.parquet",
    }
    assert set(hub.files) == names | {"LICENSE"} and hub.deleted == ["data/train-00000-of-00009.parquet"]
    assert all(hub.files[name] == (out / name).read_bytes() for name in names - {"manifest.json"})
    assert hub.private is True and hub.commits == 1


def test_dry_run_and_a_damaged_file_send_nothing(out: Path) -> None:
    with PushHub(REPO, {}, "hf_right") as hub:
        dry = push(out, hub.url, "--dry-run")
        assert dry.returncode == 0 and "data/train-00000-of-00002.parquet" in dry.stdout
        file = out / "data" / "train-00001-of-00002.parquet"
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        refused = push(out, hub.url)
    assert refused.returncode == 1 and "train-00001-of-00002" in refused.stderr and "nothing was sent" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert hub.commits == 0 and hub.private is None and not hub.files


def test_a_wrong_token_is_one_line_without_the_token(out: Path) -> None:
    with PushHub(REPO, {}, "hf_right") as hub:
        refused = push(out, hub.url, token="hf_wrong")
    assert refused.returncode == 2 and "set HF_TOKEN" in refused.stderr
    assert "hf_wrong" not in refused.stderr + refused.stdout and "Traceback" not in refused.stderr


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[PushHub]:
    """A Hub for pushes of this process, which don't wait before they try again."""
    from huggingface_hub import constants

    with PushHub(REPO, {}, "hf_right") as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        monkeypatch.setattr("pipeline.dataset.push._PAUSE_S", 0.0)
        yield made


@pytest.mark.parametrize(
    "failures", [{"/commit/": [500, 409, 0]}, {"/preupload/": [503]}, {"/repos/create": [502, 429]}, {"/batch": [504]}]
)
def test_what_passes_is_tried_again(out: Path, hub: PushHub, failures: dict[str, list[int]]) -> None:
    hub.failures = failures
    assert main(["push", str(out), REPO]) == 0
    assert hub.commits == 1 and not any(failures.values())
    # Each file once, however often the commit was tried.
    assert hub.uploads == len(hub.objects)


def test_what_was_sent_before_the_end_is_not_sent_again(
    out: Path, hub: PushHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.failures = {"/commit/": [500] * 4}
    assert main(["push", str(out), REPO]) == 1
    assert hub.commits == 0 and not hub.files and hub.uploads == 3
    error = capsys.readouterr().err
    assert "run the same command again" in error.splitlines()[-1] and "hf_right" not in error
    assert main(["push", str(out), REPO]) == 0
    assert hub.commits == 1 and hub.uploads == 3


@pytest.mark.parametrize("part", ["/repos/create", "/preupload/", "/commit/"])
def test_a_token_that_may_not_write_there_is_told(
    out: Path, hub: PushHub, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.failures = {part: [403], "/api/datasets/somebody/pairs": [403] if part == "/repos/create" else []}
    assert main(["push", str(out), REPO]) == 2
    assert "refuses (403); set HF_TOKEN" in capsys.readouterr().err.splitlines()[-1]
    assert hub.commits == 0


def test_no_token_no_manifest_and_no_such_id_are_told(
    out: Path, hub: PushHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert main(["push", str(out), REPO]) == 2
    assert "set HF_TOKEN" in capsys.readouterr().err
    assert main(["push", str(tmp_path), REPO]) == 2
    assert "no manifest.json" in capsys.readouterr().err
    for more in ([], ["--dry-run"]):
        assert main(["push", str(out), "not/a/name", *more]) == 2
        error = capsys.readouterr().err
        assert "not a Hub id" in error and error.count("\n") == 1
    assert hub.commits == 0 and hub.private is None


def test_private_data_does_not_go_to_a_public_repository(
    out: Path, hub: PushHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.private = False
    assert main(["push", str(out), REPO, "--private"]) == 2
    assert "is there already, and public; nothing was sent" in capsys.readouterr().err
    assert hub.commits == 0
    hub.private = True
    assert main(["push", str(out), REPO, "--private"]) == 0


def test_a_hub_that_cannot_be_reached_is_told(
    out: Path, hub: PushHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(out), REPO]) == 1
    error = capsys.readouterr().err
    assert "the Hub can't be reached" in error and error.count("\n") == 1


def test_no_folder_of_this_machine_is_sent(out: Path, hub: PushHub, tiny_tokenizer: Path, tmp_path: Path) -> None:
    content = read_manifest(out)
    content["source"]["location"] = content["settings"]["source"]["input"] = str(tmp_path / "rows.jsonl")
    manifest.write(out, content)
    assert main(["push", str(out), REPO]) == 0
    copy = tmp_path / "copy"
    for name, sent in hub.files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(sent)
        assert str(tmp_path).encode() not in sent and str(tiny_tokenizer).encode() not in sent, name
    for file in (copy / "data").iterdir():
        labels = json.loads(pq.read_schema(file).metadata[b"figa.labels"])
        assert labels["tokenizer"] == tiny_tokenizer.name
    sent = read_manifest(copy)
    assert sent["source"]["location"] == sent["settings"]["source"]["input"] == "rows.jsonl"
    assert sent["labels"]["tokenizer"] == tiny_tokenizer.name
    # The copy is a whole data set, whose labels can be checked by whoever has the tokenizer.
    assert main(["verify", str(copy), "--tokenizer", str(tiny_tokenizer)]) == 0


@pytest.mark.parametrize("name", ["README.md", "report.html"])
def test_card_and_report_are_checked_as_the_data_is(
    out: Path, hub: PushHub, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / name).write_text("<p>somebody was here</p>")
    assert main(["push", str(out), REPO]) == 1
    assert f"{name}: has " in (error := capsys.readouterr().err) and "nothing was sent" in error
    assert main(["verify", str(out)]) == 1
    assert f"{name}: has " in capsys.readouterr().out
    assert hub.commits == 0 and hub.private is None


def test_a_report_that_is_written_again_is_the_manifests_own(out: Path, hub: PushHub) -> None:
    (out / "report.html").write_text("damaged")
    assert main(["report", str(out)]) == 0
    assert main(["verify", str(out)]) == 0
    content = read_manifest(out)
    manifest.write(out, content | {"documents": [{**entry, "sha256": "0" * 64} for entry in content["documents"]]})
    assert main(["report", str(out)]) == main(["push", str(out), REPO]) == 0


@pytest.mark.parametrize("name", ["README.md", "data/train-00000-of-00002.parquet", "data", "manifest.json"])
def test_a_symbolic_link_is_refused(
    out: Path, hub: PushHub, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / name).rename(out / "moved")
    (out / name).symlink_to(out / "moved")
    assert main(["push", str(out), REPO]) == 1
    assert f"{out / name}: is a symbolic link" in capsys.readouterr().err
    assert hub.commits == 0


def test_strangers_files_on_the_hub_stay(out: Path, hub: PushHub) -> None:
    theirs = {"data/sales.parquet": b"x", "data/deep/raw.parquet": b"y", "rejected/mine.parquet": b"z"}
    hub.files.update(theirs)
    assert main(["push", str(out), REPO]) == 0
    assert {name: hub.files[name] for name in theirs} == theirs and not hub.deleted
