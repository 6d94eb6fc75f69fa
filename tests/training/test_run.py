"""`figa train`: trains, resumes, and refuses what can't be right, in one line."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from pipeline import open_dataset
from pipeline.cli import train
from pipeline.cli.main import main
from pipeline.dataset import manifest
from pipeline.errors import UsageError
from tests.conftest import ROOT, child_environment
from tests.training.tiny import tiny_llama

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from pipeline.training.recipe import cut  # noqa: E402
from pipeline.training.trainer import FigaTrainer  # noqa: E402

IDS = ["revised_input_ids", "initial_input_ids"]


@pytest.fixture(scope="module")
def model(policy: dict[str, Any], tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny policy as a folder that transformers loads."""
    folder = tmp_path_factory.mktemp("model")
    made = tiny_llama()
    made.load_state_dict(policy)
    made.save_pretrained(folder)
    shutil.copytree(tiny_tokenizer, folder, dirs_exist_ok=True)
    return folder


def trained(published: Path, model: Path, out: Path, *more: str) -> int:
    recipe = ["--batch-size", "16", "--lr", "1e-3", "--epochs", "2"]
    return main(["train", str(published), "--model", str(model), "--out", str(out), *recipe, *more])


@pytest.fixture(scope="module")
def whole(published: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an undisturbed run, and what it printed."""
    out = tmp_path_factory.mktemp("trained")
    with redirect_stdout(io.StringIO()) as said:
        assert trained(published, model, out) == 0
    return out, said.getvalue()


def test_it_trains_and_says_what_came_of_it(whole: tuple[Path, str]) -> None:
    out, said = whole
    summary = json.loads((out / "training.json").read_text("utf-8"))
    assert summary["pairs"] == {"trained": 40, "left_out": 0} and summary["steps"] == 6
    assert summary["settings"]["gate"] == 0.6, "as the data set records"
    before, after = summary["edit_logprobs"]["before"], summary["edit_logprobs"]["after"]
    assert before["good"] < after["good"] and after["bad"] < before["bad"]
    names = {path.name for path in out.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "training.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth")) or name.startswith("checkpoint")]
    assert "40 pairs, 16 a step" in said and "6 steps" in said


def test_an_interrupted_run_resumes_to_the_same_model(
    published: Path,
    model: Path,
    whole: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    honest, calls = FigaTrainer.training_step, iter(range(100))

    def interrupted(self: Any, *arguments: Any, **named: Any) -> Any:
        # Ten micro-batches of four pairs an epoch: this is in the second one.
        if next(calls) == 14:
            raise KeyboardInterrupt
        return honest(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(FigaTrainer, "training_step", interrupted)
        assert trained(published, model, tmp_path / "cut") == 130
    assert "--resume" in capsys.readouterr().err
    assert trained(published, model, tmp_path / "cut") == 2
    assert "give --resume" in capsys.readouterr().err
    assert trained(published, model, tmp_path / "cut", "--resume") == 0
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (whole[0] / "model.safetensors").read_bytes()


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def test_a_model_with_another_tokenizer_is_refused(
    published: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(model, tmp_path / "other")
    template = other / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("<|im_end|>\n", "<|im_end|>"), "utf-8")
    assert trained(published, other, tmp_path / "out") == 2
    error = refused(capsys)
    assert "first seen in pair" in error and "figa relabel" in error
    assert not (tmp_path / "out").exists()


def test_another_fingerprint_with_the_same_tokens_is_accepted(published: Path, model: Path, tmp_path: Path) -> None:
    """As after an update of the tokenizers library."""
    same = shutil.copytree(published, tmp_path / "same", ignore=shutil.ignore_patterns("work"))
    content = json.loads((same / "manifest.json").read_text("utf-8"))
    content["labels"]["fingerprint"] = "0" * 64
    manifest.write(same, content)
    assert trained(same, model, tmp_path / "out", "--max-steps", "1") == 0


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--max-length", "20"], "all 40 are longer than 20 tokens"),
        (["--model", "/no/such/model"], "/no/such/model"),
        (["--resume"], "no epoch was saved"),
    ],
)
def test_mistakes_are_one_line(
    published: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], named: str
) -> None:
    assert trained(published, model, tmp_path / "out", *more) == 2
    assert named in refused(capsys)


@pytest.mark.parametrize(
    "option",
    ["--batch-size=0", "--lr=nan", "--epochs=-1", "--max-steps=0", "--micro-batch-size=x", "--gate=-1", "--gate=0.6,x"],
)
def test_numbers_that_make_no_sense_are_bad_usage(
    published: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        trained(published, model, tmp_path / "out", option)
    assert stopped.value.code == 2
    assert f"argument {option.split('=', maxsplit=1)[0]}: expected a number " in capsys.readouterr().err


def test_pairs_marked_as_too_long_are_left_out(published: Path, model: Path, tmp_path: Path) -> None:
    marked = shutil.copytree(published, tmp_path / "marked", ignore=shutil.ignore_patterns("work"))
    content = json.loads((marked / "manifest.json").read_text("utf-8"))
    content["labels"] |= {"overlong": "mark", "max_length": 200}
    manifest.write(marked, content)
    lengths = [
        max(map(len, pair))
        for pair in zip(*(column.to_pylist() for column in open_dataset(marked).to_table(IDS)), strict=True)
    ]
    assert trained(marked, model, tmp_path / "out", "--max-steps", "1", "--gate", "0.6,1") == 0
    summary = json.loads((tmp_path / "out" / "training.json").read_text("utf-8"))
    pairs = summary["pairs"]
    assert summary["settings"]["gate"] == [0.6, 1.0]
    assert pairs == {"trained": sum(n <= 200 for n in lengths), "left_out": sum(n > 200 for n in lengths)}
    assert pairs["left_out"]


def test_a_loss_that_is_no_number_ends_the_run(
    published: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained(published, model, tmp_path / "out", "--lr", "1e30", "--gate", "inf", "--max-steps", "2") == 1
    assert "lower --lr" in refused(capsys)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_model_with_too_few_positions_is_refused(
    published: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = shutil.copytree(model, tmp_path / "small")
    config = json.loads((small / "config.json").read_text("utf-8"))
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 200}), "utf-8")
    assert trained(published, small, tmp_path / "out") == 2
    assert "takes 200 tokens" in refused(capsys)
    assert trained(published, small, tmp_path / "out", "--max-length", "200", "--max-steps", "1") == 0
    pairs = json.loads((tmp_path / "out" / "training.json").read_text("utf-8"))["pairs"]
    assert pairs["left_out"] > 0 and pairs["trained"] + pairs["left_out"] == 40


def test_without_torch_it_says_what_to_install(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "find_spec", lambda name: None)
    assert main(["train", str(published), "--model", "x", "--out", str(tmp_path / "out")]) == 2
    assert "-e '.[train]'" in refused(capsys)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pipeline.cli.main import parser_of; parser_of('train').format_help(); "
        "print({'torch', 'transformers'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=child_environment(), check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("batch", "most", "devices", "expected"),
    [(128, 4, 1, (4, 32)), (128, 4, 2, (4, 16)), (6, 4, 1, (3, 2)), (7, 4, 1, (1, 7)), (2, 4, 1, (2, 1))],
)
def test_a_batch_is_cut_into_equal_micro_batches(
    batch: int, most: int, devices: int, expected: tuple[int, int]
) -> None:
    assert cut(batch, most, devices) == expected


def test_devices_that_cannot_share_a_batch_are_refused() -> None:
    with pytest.raises(UsageError, match="multiple of the number of devices, 3"):
        cut(128, 4, 3)
