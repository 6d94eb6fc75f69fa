"""Rounds: each samples from the model that the one before has trained, and goes on where it was stopped."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import interrupts
from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.dataset.reader import read_manifest
from pipeline.errors import ModelUnavailable, UsageError
from pipeline.training import rounds
from tests.conftest import ROOT, as_arguments
from tests.flows.server import free_port
from tests.training.tiny import tiny_llama

pytest.importorskip("accelerate")

# Stands in for the server of a model of a few million random weights, and takes any name.
SERVE = f"env PYTHONPATH={ROOT} {sys.executable} -m tests.loopback --port {{port}} --key ''"


@pytest.fixture
def base(tiny_tokenizer: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    tiny_llama().save_pretrained(folder)
    shutil.copytree(tiny_tokenizer, folder, dirs_exist_ok=True)
    return folder


def test_each_round_samples_from_the_model_that_the_one_before_trained(
    settings: Callable[..., CurationConfig],
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    monkeypatch.setattr(rounds, "PORT", port)
    config = settings("rounds", source__limit=12)
    command = ["build", *as_arguments(config), "--rounds", "2", "--model", str(base), "--json", "--prefect", "off"]
    command += ["--serve", SERVE, "--train", "--max-steps 1 --batch-size 4 --lr 1e-3"]
    assert main(command) == 0
    said = capsys.readouterr()
    table = json.loads(said.out)["rounds"]
    assert "round 2" in said.err and max(map(len, said.err.splitlines()[-8:])) < 80, said.err
    assert table == json.loads((config.out / "rounds.json").read_text("utf-8"))
    one, two = (read_manifest(config.out / f"round-{number}") for number in (1, 2))
    trained = table[1]["model"]
    assert (config.out / trained / "training.json").exists()
    assert one["models"]["policy"]["name"] == f"openai/base@http://127.0.0.1:{port}/v1"
    assert two["models"]["policy"]["name"] == f"openai/{trained}@http://127.0.0.1:{port}/v1"
    assert one["labels"]["fingerprint"] == two["labels"]["fingerprint"]
    assert [(row["round"], row["drafts"]) for row in table] == [(1, 12), (2, 12)]
    # The stand-in's answers depend on the model's name. The queries are the same, so means differ by the mean difference.
    means = [row["reward of drafts"] for row in table]
    assert (table[0]["change from round 1"], table[1]["change from round 1"]) == (
        0,
        pytest.approx(means[1] - means[0], abs=2e-4),
    )
    assert table[1]["change from round 1"] and table[1]["its standard error"] > 0
    assert table[0]["published"] == one["rows"]["published"] > 0
    sent = settings.server.completed  # type: ignore[attr-defined]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == table
    assert settings.server.completed == sent  # type: ignore[attr-defined]


def test_a_server_that_ends_is_named_and_a_taken_port_refused(tmp_path: Path) -> None:
    port = free_port()

    def serve(command: str) -> None:
        with rounds.served("m", tmp_path, command, port):
            pass

    with pytest.raises(ModelUnavailable, match=r"--serve false: it ended with exit code 1; see .*server\.log"):
        serve("false {model}")
    with pytest.raises(ModelUnavailable, match="--serve no-such-program: No such file"):
        serve("no-such-program")
    with rounds.served("m", tmp_path, SERVE, port), pytest.raises(UsageError, match=f"port {port} is taken"):
        serve(SERVE)


def test_a_server_that_ignores_the_signal_ends_before_its_run_would(tmp_path: Path) -> None:
    script = tmp_path / "stubborn.py"
    script.write_text(
        "import http.server, os, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.makedirs('v1/models')\n"
        "http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')\n",
        "utf-8",
    )
    port = free_port()
    with rounds.served("base", tmp_path, f"{sys.executable} {script} {{port}}", port):
        assert rounds._answers(port)
    assert not rounds._answers(port)
    assert rounds.SERVER_ENDS_S < interrupts._PATIENCE_S


def test_a_models_name_is_needed_where_the_policy_cannot_be_trained(
    settings: Callable[..., CurationConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", *as_arguments(settings()), "--rounds", "2"]) == 2
    assert "can't be trained here: name the model to begin with, by --model" in capsys.readouterr().err
