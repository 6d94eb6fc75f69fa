"""Start-up: `--help`, imports, a rerun with nothing to do, `status` and `verify`, each a process, against a bare interpreter.

The data set is the bundled sample, made by scripted models that answer at once. A rerun reads the settings, finds every stage
file done and ends; it loads no tokenizer, no reward and no SDK.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.measure import Figure, repeated, seconds
from tests.conftest import CHAT_TEMPLATE, SAMPLE, child_environment
from tests.labels.families import byte_level, fast
from tests.loopback import KEY, LoopbackProcess

_REPEATS = 7


def run(*, quick: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        out = Path(name, "out")
        build = _build(Path(name), out)
        timed = {
            "python, nothing imported": ["-c", "pass"],
            "import openai": ["-c", "import openai"],
            "import pipeline": ["-c", "import pipeline"],
            "import pipeline; pipeline.open_dataset(DIR)": [
                "-c",
                f"import pipeline; pipeline.open_dataset({str(out)!r})",
            ],
            "pipeline.cli.build --help": ["-m", "pipeline", "build", "--help"],
            "pipeline.cli.build, nothing to do": build,
            "pipeline.cli.status DIR": ["-m", "pipeline", "status", str(out)],
            "pipeline.cli.verify DIR": ["-m", "pipeline", "verify", str(out)],
        }
        took: dict[str, list[float]] = {what: [] for what in timed}
        for _ in range(1 if quick else _REPEATS):
            for what, arguments in timed.items():
                took[what].append(seconds(lambda arguments=arguments: _python(arguments)))  # type: ignore[misc]
    targets = {"pipeline.cli.build --help": "below 0.5", "pipeline.cli.build, nothing to do": "below 2"}
    return [repeated(what, "s", values, targets.get(what, "")) for what, values in took.items()]


def _build(folder: Path, out: Path) -> list[str]:
    """The arguments of a run that is done: the server that answered it is gone."""
    fast(byte_level(), eos_token="<|im_end|>", chat_template=CHAT_TEMPLATE).save_pretrained(folder / "tokenizer")
    with LoopbackProcess("--behaviour", "pipeline") as server:
        models = {name: f"{name}.model=openai/{name}@{server.openai_url}" for name in ("policy", "reviser")}
        options = ["--source", "hh-rlhf", "--input", str(SAMPLE), "--out", str(out), "--prefect", "off"]
        keys = [f"{name}.api_key_env=OPENAI_API_KEY" for name in models]
        settings = [*models.values(), *keys, f"labels.tokenizer={folder / 'tokenizer'}", "filter.min_reward_gain=-100"]
        build = ["-m", "pipeline", "build", *options, *(part for value in settings for part in ("--set", value))]
        _python(build)
        if not server.stats()["completed"]:
            raise RuntimeError("the run asked nothing")
    return build


def _python(arguments: list[str]) -> None:
    environment = child_environment(OPENAI_API_KEY=os.environ.get("OPENAI_API_KEY", KEY))
    subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=True)
