"""Whatever is typed, set or written into a file of settings: an exit code and a message, and never a traceback."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.main import COMMANDS, main, parser_of
from pipeline.config.loading import listed_settings

NUMBERS = [
    "0",
    "-1",
    "1e400",
    "nan",
    "-inf",
    "9" * 400,
    "9" * 5000,
    "0x1F",
    "1_000",
    "٣",
    "+5",
    "1.5",
    "",
    "1e-400",
    "{}",
]
TEXTS = [
    "",
    " ",
    "a\0b",
    "\udcff",
    "\ud800",
    "\n",
    "\x1b[2J",
    "\u202e",
    "🦙",
    "%s",
    "{x}",
    "-",
    "--",
    "*",
    "[",
    "?",
    "\\",
]
PATHS = [
    "/",
    "//",
    "~",
    "~nobody/x",
    "x" * 300,
    "/" + "x" * 300,
    "d/" * 3000,
    "http://",
    "http://[",
    "s3://",
    "s3://b/\x00",
    "://",
    "ftp://x/y",
    "file://",
    "file:///" + "y" * 300,
    "hf://",
    "nope://x",
    "a::b",
    "CON",
    "../" * 50,
    "x.jsonl",
    "x.parquet",
]
YAML = [
    "[" * 20000,
    "{" * 20000,
    "{a: " * 5000,
    "- " * 5000,
    "&a [*a]",
    "*x",
    "!!python/object:os.system x",
    "{a: b: c}",
    "\t",
    "'",
    "2001-99-99",
    "2024-01-01",
    "!!timestamp 2001-99-99",
    "? a",
    "null",
    "~",
    "yes",
    ".inf",
    "!!binary x",
    "{<<: 1}",
    "{[a]: b}",
    "{? {a: b} : c}",
    "!!set {a}",
    "!!float x",
    "!!int ''",
    "1" * 5000,
    "[1, [2, {3: 4}]]",
    "0o9",
]
FLAGS = (
    "--source --input --limit --out --config --set --budget --format --variant --tokenizer --sample --where --keep --model"
    " --html --epochs --lr --batch-size --granularity --alpha --gate --seed --target --json --private --yes --prefect --best"
).split()
SWITCHES = "--json --yes --private --require-full-source --allow-plugins --no-labels".split()
NAMES = [one["name"] for one in listed_settings()] + [
    "",
    ".",
    "..",
    "source",
    "source.",
    ".name",
    "source.name.x",
    "a.b.c.d",
]
VARIABLES = (
    "OPENAI_BASE_URL ANTHROPIC_BASE_URL FIGA_STATE FIGA_ADDRESSES HF_HOME FIGA_POLICY__MODEL FIGA_A__B FIGA_SOURCE__"
)
# These send, train or call: only what is wrong with their arguments is tried.
OUTSIDE = {"push": ["no-id"], "train": ["--model", "local/none"], "check": ["--source", "jsonl", "--input", "/nowhere"]}


def strange_files(folder: Path) -> list[str]:
    """Files, folders and links that no command expects; their paths."""
    contents = {
        "file": b"x",
        "empty": b"",
        "latin1.jsonl": b'{"prompt": "\xe9"}',
        "deep.jsonl": b"[" * 100_000,
        "cut.jsonl.gz": b"\x1f\x8b\x08",
        "cut.parquet": b"PAR1",
        "binary.yaml": bytes(range(256)),
        "loop.yaml": b"a: &a [*a]",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    broken = folder / "broken"
    (broken / "work").mkdir(parents=True)
    for name in ("manifest.json", "work/plan.json", "work/run.json", "work/journal.db"):
        (broken / name).write_bytes(
            b'{"format": "figa-pipeline", "schema_version": [' if "db" not in name else b"SQLite"
        )
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    made = [*contents, "broken", "broken/manifest.json", "loop", "dangling", "file/inner", "", "."]
    return [str(folder / name) for name in made]


class Typist:
    """Makes up command lines, files of settings and environments."""

    def __init__(self, folder: Path, published: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.folder = folder
        self.published = str(published)
        self.paths = PATHS + strange_files(folder)

    def value(self) -> str:
        text = self.dice.choice(self.dice.choice([NUMBERS, TEXTS, self.paths, YAML]))
        return text if self.dice.random() < 0.9 else text[:500] + self.dice.choice(TEXTS)

    def settings_file(self) -> str:
        lines = []
        for _ in range(self.dice.randint(1, 3)):
            section, _, key = self.dice.choice(NAMES).partition(".")
            lines.append(f"{section}:\n  {key}: {self.value()}" if self.dice.random() < 0.7 else self.value())
        path = self.folder / "settings.yaml"
        path.write_text("\n".join(lines), "utf-8", "surrogatepass")
        return str(path)

    def command(self) -> list[str]:
        name = self.dice.choice([*COMMANDS, "build", "build", "build", self.value()])
        words = [name]
        if name in ("build", "check"):
            words += ["--source", self.dice.choice(["jsonl", "demo", "parquet", "hh-rlhf,shp", self.value()])]
            words += ["--dry-run"] if name == "build" else []
        elif self.dice.random() < 0.9:
            words.append(self.published if self.dice.random() < 0.4 else self.dice.choice(self.paths))
        own = list(parser_of(name)._option_string_actions) if name in COMMANDS else ["--set"]
        for _ in range(self.dice.randint(0, 3)):
            words += self.flag(own if self.dice.random() < 0.9 else FLAGS)
        return words + OUTSIDE.get(name, [])

    def flag(self, known: list[str]) -> list[str]:
        flag = self.dice.choice([name for name in known if name not in ("-h", "--help", "--dry-run")])
        if flag == "--set":
            return [flag, f"{self.dice.choice(NAMES)}={self.value()}"]
        if flag == "--config":
            return [flag, self.settings_file()]
        return [flag] if flag in SWITCHES else [flag, self.value()]

    def environment(self) -> dict[str, str]:
        if self.dice.random() < 0.7:
            return {}
        text = self.value().replace("\0", "")[:3000].encode("utf-8", "ignore").decode()
        return {self.dice.choice(VARIABLES.split()): text}


@pytest.mark.parametrize(("tries", "seed"), [(60, 1), pytest.param(2000, 2, marks=pytest.mark.slow)])
def test_no_command_line_ends_in_a_traceback(
    tmp_path: Path,
    published: Path,
    tries: int,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "at").mkdir()
    monkeypatch.chdir(tmp_path / "at")
    for name, value in {"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "FIGA_STATE": str(tmp_path / "state")}.items():
        monkeypatch.setenv(name, value)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    typist = Typist(tmp_path, shutil.copytree(published, tmp_path / "published"), seed)
    for number in range(tries):
        words, environment = typist.command(), typist.environment()
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            code = _code(lambda: main(words))  # noqa: B023 - called at once
        told = f"try {number} of seed {seed}: {[word[:300] for word in words]} {environment}"
        printed = capsys.readouterr()
        assert code in (0, 1, 2), told
        assert "Traceback" not in printed.err, told
        assert code == 0 or "error: " in printed.err or "usage: " in printed.err or "problem" in printed.out, told


def _code(run: Callable[[], int]) -> object:
    try:
        return run()
    except SystemExit as ended:
        return ended.code
    except Exception as error:
        return error
