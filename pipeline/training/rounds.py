"""Rounds: curate, train, serve what was trained, and curate again from its answers to the same queries.

    OUT/base → the model that the first round samples from: a link, or an embedded model's weights out of its GGUF file
    OUT/round-1/             a data set like any other
    OUT/model-1f0c…/         what its pairs made of that model, named after the digest of its manifest
    OUT/round-2/             a data set of that model's answers …
    OUT/rounds.json          the figures of each round

The same command goes on where it was stopped. Knows nothing of how a round is run: `curate` is passed in.
"""

import hashlib
import json
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import environ, pathsep
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np

from pipeline.config.settings import CurationConfig
from pipeline.dataset import manifest
from pipeline.dataset.measures import files_of, measure, median
from pipeline.errors import CurationError, ModelUnavailable, UsageError
from pipeline.models import factory
from pipeline.models.local import catalog, download
from pipeline.storage import stage_files, stopping
from pipeline.storage.atomic import write_text
from pipeline.storage.remote import RemotePath

# Part of a served model's name, and so of what determines a round's data: it stays the same.
PORT = 8471
# Seconds that a server has to end. A run has four from a signal to its own end: a server with longer would outlive it.
SERVER_ENDS_S = 2.0
SERVE = "transformers serve {model} --host 127.0.0.1 --port {port}"
Figures = dict[str, Any]


def run_rounds(
    config: CurationConfig,
    model: str,
    count: int,
    curate: Callable[[CurationConfig], dict[str, Any]],
    *,
    train: Sequence[str] = (),
    serve: str = SERVE,
) -> Iterator[Figures]:
    """Yields the figures of each round when it is done; the last one trains nothing.

    model: folder, Hub id or local/NAME of the model to sample from and to train; config: its output folder holds all rounds,
    its policy's other settings are those of every round. curate: runs one, returns its manifest. train: more arguments of
    `figa train`; serve: a command with {model} and {port} that serves a model as OpenAI does. Raises CurationError.
    """
    out = config.out
    done: list[Figures] = []
    first: dict[str, float] = {}
    if isinstance(out, RemotePath):
        raise UsageError(f"--out {out}: rounds need a folder on this machine")
    out.mkdir(parents=True, exist_ok=True)
    if model.startswith("local/") and config.policy.system is None:
        settings = config.policy.model_copy(update={"model": model})
        policy = config.policy.model_copy(update={"system": factory.system_prompt(settings)})
        config = config.model_copy(update={"policy": policy})
    if serve == SERVE and "concurrency" not in config.policy.model_fields_set:
        # It generates for each request apart: several at a time only slow each other down, until they time out.
        config = config.model_copy(update={"policy": config.policy.model_copy(update={"concurrency": 1})})
    name = base = _base(model, out)
    for number in range(1, count + 1):
        with served(name, out, serve, PORT) as url:
            content = curate(_round(config, f"openai/{name}@{url}", base, out / f"round-{number}"))
        rewards = _rewards_of_drafts(out / f"round-{number}")
        first = first or rewards
        figures = {"round": number, "model": name, **_figures(out / f"round-{number}", content, rewards, first)}
        done.append(figures)
        write_text(out / "rounds.json", json.dumps(done, indent=1) + "\n")
        yield figures
        if number < count:
            name = trained(out / f"round-{number}", _path(name, out), out, train).name


def trained(root: Path, model: str, folder: Path, options: Sequence[str]) -> Path:
    """Train `model` on a data set by `figa train`, unless it is done; returns its folder in `folder`. Raises CurationError.

    A process of its own: its memory goes with it, and it ends when this one is interrupted.
    """
    target = folder / f"model-{hashlib.sha256((root / manifest.NAME).read_bytes()).hexdigest()[:12]}"
    if (target / "training.json").exists():
        return target
    command = [sys.executable, "-m", "pipeline", "train", str(root), "--model", model, "--out", str(target)]
    done = stopping.run([*command, *options], stdout=2, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise CurationError(f"figa train: {(done.stderr.strip() or f'exit code {done.returncode}').splitlines()[-1]}")
    return target


@contextmanager
def served(model: str, folder: Path, command: str, port: int) -> Iterator[str]:
    """Start the server of a model in its folder, and wait until it answers; yields its address."""
    if _answers(port):
        raise UsageError(f"port {port} is taken by another server; stop it, or run one round after another")
    log = folder / "server.log"
    path = f"{Path(sys.executable).parent}{pathsep}{environ.get('PATH', '')}"
    words = shlex.split(command.format(model=model, port=port))
    with log.open("wb") as file:
        try:
            server = subprocess.Popen(
                words, cwd=folder, env=environ | {"PATH": path}, stdout=file, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise ModelUnavailable(f"--serve {words[0]}: {error.strerror}") from None
        try:
            while not _answers(port):
                if server.poll() is not None:
                    raise ModelUnavailable(
                        f"--serve {words[0]}: it ended with exit code {server.returncode}; see {log}"
                    )
                stopping.check()
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            try:
                server.wait(SERVER_ENDS_S)
            except subprocess.TimeoutExpired:
                server.kill()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5):
            return True
    except HTTPError as error:
        # Some want a key; some are there before their model is.
        return error.code < 500
    except OSError:
        return False


def _base(model: str, out: Path) -> str:
    """The name by which a server that is started in `out` finds the first model."""
    base, folder = out / "base", Path(model).expanduser()
    if base.exists():
        return base.name
    if folder.is_dir():
        base.symlink_to(folder.resolve())
        return base.name
    if not model.startswith("local/"):
        return model
    from transformers import AutoModelForCausalLM, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    from pipeline.labels.gguf import tokenizer_folder

    file = download.fetch(catalog.get(model.removeprefix("local/")))
    unpacked = out / "base.tmp"
    unpacked.mkdir(exist_ok=True)
    disable_progress_bar()
    dense = GgufConfig(dequantize=True)
    weights = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, quantization_config=dense)
    # Without it, `transformers serve` takes no notice of a request's temperature.
    weights.generation_config.do_sample = True
    weights.save_pretrained(unpacked)
    tokenizer_folder(file, unpacked).rename(base)
    return base.name


def _path(name: str, out: Path) -> str:
    return str((out / name).absolute()) if (out / name).is_dir() else name


def _round(config: CurationConfig, policy: str, base: str, out: Path) -> CurationConfig:
    return config.model_copy(
        update={
            "policy": config.policy.model_copy(update={"model": policy}),
            # All trained models have that of the first.
            "labels": config.labels.model_copy(update={"tokenizer": _path(base, config.out)}),
            "output": config.output.model_copy(update={"dir": str(out)}),
        }
    )


def _rewards_of_drafts(root: Path) -> dict[str, float]:
    """The reward of every scored answer, by the row's id; empty where the work folder is gone."""
    work = root / "work"
    files = (stage_files.inspect(work, "score", n) for n in range(len(list((work / "score").glob("*.json")))))
    rows = [row for file in files if file for row in stage_files.read(file, ["id", "reward_initial"]).to_pylist()]
    return {row["id"]: row["reward_initial"] for row in rows}


def _figures(root: Path, content: dict[str, Any], rewards: dict[str, float], first: dict[str, float]) -> Figures:
    """change: mean difference from the first round's rewards of the same queries, and its standard error."""
    measured, rows = measure(files_of(root, content)), content["rows"]
    differences = np.array([rewards[name] - first[name] for name in rewards.keys() & first.keys()])
    error = float(differences.std(ddof=1) / len(differences) ** 0.5) if len(differences) > 1 else None
    return {
        "read": rows["read"],
        "published": rows["published"],
        "yield": round(rows["published"] / max(1, rows["read"]), 4),
        "drafts": len(rewards),
        "reward of drafts": round(float(np.mean(list(rewards.values()))), 4) if rewards else None,
        "change from round 1": round(float(differences.mean()), 4) if len(differences) else None,
        "its standard error": None if error is None else round(error, 4),
        "median edit distance": median(measured.numbers["edit_distance"]),
        "median reward gain": median(measured.numbers["reward_gain"]),
    }
