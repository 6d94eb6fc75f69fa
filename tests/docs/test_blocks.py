"""Every command block of README and docs is run, page by page in one folder, or is in the table of those that can't be.

`figa` lines run in this process, with the page's models at loopback servers; other lines by bash. Python blocks are executed.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.models import retry
from tests.conftest import ROOT, child_environment, write_rows
from tests.loopback import LoopbackServer, behaviours
from tests.loopback.batches import BatchDesk
from tests.loopback.rewards import RewardDesk

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^( *)```(sh|python)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
# By page and words in the block: why it isn't run here.
NOT_RUN = {
    (
        "README.md",
        "pip install -q -e '.[local]' &&",
    ): "installs, and fetches a model; .ci/run and a fresh machine run it",
    ("README.md", "python3 -m venv .venv-test"): "this very test suite; .ci/run runs it",
    ("CONTRIBUTING.md", "python3 -m venv .venv-test"): "this very test suite; .ci/run runs it",
    ("recipes.md", "s3://"): "needs a bucket; tests/kills/s3.py runs such a build",
    ("recipes.md", "prefect work-pool"): "needs a server that stays; tests/flows run the deployments",
    ("recipes.md", "docker build"): "needs docker; tests/flows/test_containers.py reads the Dockerfile",
    ("recipes.md", "--rounds"): "serves a trained model; tests/training/test_rounds.py runs it",
    ("recipes.md", "run.runner=dask"): "needs the extra; tests/flows/test_runners.py runs it",
    ("evidence.md", "tests.benchmarks --list"): "takes an hour; tests/benchmarks/test_suites.py runs each suite small",
    ("cost.md", "tests.benchmarks.cost"): "needs a local copy of hh-rlhf; tests/benchmarks/test_suites.py",
}


def blocks(page: Path) -> list[tuple[str, str]]:
    found = BLOCK.findall(page.read_text("utf-8"))
    return [(kind, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)) for indent, kind, text in found]


def reason(page: Path, text: str) -> str | None:
    return next((why for (name, words), why in NOT_RUN.items() if name == page.name and words in text), None)


def test_the_table_names_blocks_that_are_there() -> None:
    for name, words in NOT_RUN:
        (page,) = [page for page in PAGES if page.name == name]
        assert any(words in text for _, text in blocks(page)), (name, words)


@pytest.fixture
def place(
    tmp_path: Path,
    tiny_tokenizer: Path,
    published: Path,
    loopback: Callable[..., LoopbackServer],
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """A folder as a reader of the page has it; returns what stands in place of the page's addresses and names."""
    desk = RewardDesk(lambda text: float(len(text) % 7))
    server = loopback(behaviours.pipeline, extensions=[desk.extend, *BatchDesk().extensions], key=None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(retry, "_backoff", lambda state: 0.001)
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    monkeypatch.setenv("FIGA_STATE", str(tmp_path / "state"))
    monkeypatch.syspath_prepend(str(tmp_path))
    write_rows(tmp_path / "rows.jsonl")
    lines = [json.dumps({"question": f"What is {n} plus {n}?", "answer": f"It is {2 * n}."}) for n in range(30)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines), "utf-8")
    asked = {"system_prompt": "", "question": "Why is the sky blue?", "response": "Air scatters blue light the most."}
    (tmp_path / "orca.jsonl").write_text(json.dumps(asked), "utf-8")
    (tmp_path / "eval.jsonl").write_text(json.dumps({"question": "Who wrote which long book in that year?"}), "utf-8")
    shutil.copytree(ROOT / "prompts", tmp_path / "prompts")
    for name in ("other", "hh-rlhf"):
        shutil.copytree(published, tmp_path / "out" / name)
    return {
        "=...": "=sk-loopback",
        'SFTConfig("out/trl", ': 'SFTConfig("out/trl", use_cpu=True, bf16=False, max_steps=1, ',
        "http://localhost:8000/v1": server.openai_url,
        "http://localhost:9000": server.url,
        "hf/OpenAssistant/reward-model-deberta-v3-large-v2": "local/reward-head",
        "org/my-sft-model": str(model(tmp_path / "model", tiny_tokenizer)),
        "--source hh-rlhf ": "--source hh-rlhf --input rows.jsonl ",
        "--limit 2000": "--limit 24",
        "--limit 200": "--limit 24",
        "--limit 300": "--limit 30",
        "--source hh-rlhf,openorca ": "--source hh-rlhf,openorca --limit 12 ",
    }


def model(folder: Path, tokenizer: Path) -> Path:
    """The tokenizer, and where torch is, a tiny random model of it."""
    shutil.copytree(tokenizer, folder)
    try:
        import torch  # noqa: F401
    except ImportError:
        return folder
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=1024, **sizes)).save_pretrained(folder)
    return folder


# Every run of these pages: what scripted texts would otherwise decide, and one that stays away from a server of the user's.
_SCRIPTED = ["selection.eta1=off", "selection.eta2=off", "selection.eta3=off", "filter.min_reward_gain=-100"]
_SCRIPTED += ["filter.reject_contradictions=false"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_as_printed(
    page: Path, place: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = [(kind, text) for kind, text in blocks(page) if not reason(page, text)]
    if page.name in ("training.md", "review.md", "recipes.md"):
        assert main(["build", "--source", "demo", "--prefect", "off"]) == 0
    if page.name in ("training.md", "review.md"):
        assert main(["relabel", "out/demo", "--tokenizer", place["org/my-sft-model"], "--out", "out/mine"]) == 0
    if page.name == "review.md":
        decide("ann", Path("decisions.json"))
        decide("ben", Path("ben.json"))
    for kind, printed in run:
        text = functools.reduce(lambda text, one: text.replace(*one), place.items(), printed)
        if kind == "python":
            python(text)
        else:
            for line in text.replace("\\\n", " ").splitlines():
                shell(line.strip(), monkeypatch)


def decide(reviewer: str, file: Path) -> None:
    """Write decisions on the demo set, as its report would."""
    manifest = json.loads(Path("out/demo/manifest.json").read_text("utf-8"))
    decisions = [{"id": "e189300ec7dba690", "decision": "drop"}, {"id": "7d8f3a89ff26d8e4", "decision": "keep"}]
    content = {"format": "figa-review", "run_digest": manifest["run_digest"], "reviewer": reviewer}
    file.write_text(json.dumps(content | {"decisions": decisions}), "utf-8")


def python(text: str) -> None:
    if "trl" in text:
        pytest.importorskip("trl")
    if "torch" in text or "FigaCollator" in text:
        pytest.importorskip("torch")
    if text.startswith("# my_checks.py"):
        Path("my_checks.py").write_text(text, "utf-8")
        sys.modules.pop("my_checks", None)  # another test's
        return
    exec(compile(text, "the page", "exec"), {})


def shell(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one line; a `figa` line in this process, where it must end with 0."""
    words = shlex.split(line, comments=True)
    if not words or words[:2] == ["pip", "install"]:
        return
    if words[0] == "export":
        for assignment in words[1:]:
            monkeypatch.setenv(*assignment.split("=", 1))
        return
    if words[0] != "figa":
        done = subprocess.run(["bash", "-c", line], env=child_environment(), check=False)
        assert done.returncode == 0, line
        return
    if words[1] == "train":
        pytest.importorskip("torch")
        words += ["--max-steps", "1", "--batch-size", "2", "--precision", "fp32"]
    if words[1] == "build" and "demo" not in words:
        place = words.index("--set") if "--set" in words else len(words)
        words[place:place] = ["--set", *_SCRIPTED, "--prefect", "off"]
        if "reviser.mode=batch" in words:
            words += ["--set", "reviser.batch_poll_s=0.1", "reviser.batch_quiet_s=0.5"]
        if not any(word.startswith("policy.model=") or word == "--dry-run" for word in words):
            words += ["--set", "policy.model=openai/policy"]
        if not any(word.startswith("labels.tokenizer=") for word in words):
            words += ["--set", f"labels.tokenizer={Path('model').resolve()}"]
    elif words[1] == "build":
        words += ["--prefect", "off"]
    assert main(words[1:]) == 0, line
