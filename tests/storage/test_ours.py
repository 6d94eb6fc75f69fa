"""Nothing in an output folder that isn't this program's is written over, moved or deleted; somebody else's is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.errors import ConfigError, UsageError
from pipeline.run import shards
from pipeline.storage.location import location
from pipeline.storage.lock import run_lock
from pipeline.storage.ours import remove_temporaries
from tests.conftest import Silent

Settings = Callable[..., CurationConfig]


def take(out: Path) -> None:
    with run_lock(out, print):
        pass


def everything(folder: Path) -> dict[str, bytes | None]:
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


THEIRS = (
    ".tmp-notes",
    ".tmp-x/deep/thesis.txt",
    "data/.tmp-1-sales.parquet",
    "data/sales.parquet",
    "data/raw/train-00000-of-00001.parquet",
    "work/.tmp-1-x/plan.json",
    "work/score/.tmp-1-mine.arrow",
    "elsewhere/.tmp-1-manifest.json",
    ".superseded/data/sales.parquet",
)


def test_a_run_and_a_republication_leave_every_stranger_as_it_was(settings: Settings) -> None:
    config = settings()
    take(config.out)
    for name in THEIRS:
        (config.out / name).parent.mkdir(parents=True, exist_ok=True)
        (config.out / name).write_text(f"mine: {name}")
    outside = config.out.parent / "outside.json"
    outside.write_text("precious")
    (config.out / ".tmp-1-manifest.json").symlink_to(outside)
    ours = config.out / "work" / ".tmp-99999-plan.json"
    ours.write_text("half")
    for distance in (0.8, 0.79, 0.78):
        shards.forget_contexts()
        curate(settings(filter__max_distance=distance), in_threads, Silent())
    assert {name: (config.out / name).read_text() for name in THEIRS} == {name: f"mine: {name}" for name in THEIRS}
    assert outside.read_text() == "precious" and (config.out / ".tmp-1-manifest.json").is_symlink()
    assert not ours.exists()


def test_a_folder_with_a_temporary_name_is_no_file_of_ours(tmp_path: Path) -> None:
    (tmp_path / "work" / ".tmp-7-plan.json").mkdir(parents=True)
    remove_temporaries(tmp_path)
    assert (tmp_path / "work" / ".tmp-7-plan.json").is_dir()


@pytest.mark.parametrize(
    "name", ["README.md", "report.html", "data/sales.parquet", "rejected/my.txt", "notes", "work/x"]
)
def test_a_folder_with_anything_of_somebody_elses_is_refused_untouched(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("mine")
    before = everything(tmp_path)
    with pytest.raises(UsageError, match=f"{name} is not this program's"):
        take(tmp_path)
    assert everything(tmp_path) == before
    # What a run has begun is its own, whatever is added to it.
    theirs.unlink()
    take(tmp_path)
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("mine")
    take(tmp_path)


def test_leftovers_of_a_publication_and_of_the_system_are_no_strangers(tmp_path: Path) -> None:
    leftovers = (
        "data/train-00000-of-00001.parquet rejected/select-0123abcd.parquet rejected/.tmp-7-merge.parquet .DS_Store"
    )
    for name in leftovers.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    take(tmp_path)


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"format": "other"}', '{"format": "figa-pipeline", "schema_version": "9.0"}']
)
def test_a_manifest_of_another_program_or_schema_stands(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UsageError, match="would be lost"):
        take(tmp_path)
    assert everything(tmp_path) == {"manifest.json": content.encode()}


def test_root_home_and_repositories_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, repository = tmp_path / "home", tmp_path / "repository"
    home.mkdir()
    (repository / ".git").mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(repository)
    for out in ("/", "~", ".", str(home), str(tmp_path / "link"), str(repository)):
        assert main(["build", "--source", "demo", "--out", out, "--prefect", "off"]) == 2
        assert "name a folder below it" in capsys.readouterr().err
    assert main(["build", "--source", "demo", "--out", "", "--prefect", "off"]) == 2
    assert "expected a folder's path" in capsys.readouterr().err
    assert not list(home.iterdir()) and [path.name for path in repository.iterdir()] == [".git"]


@pytest.mark.parametrize("text", ["", " ", "a\0b"])
def test_what_is_no_path_is_a_usage_error(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a folder's path"):
        location(text)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_work_is_the_users_alone_and_what_is_published_follows_the_umask(settings: Settings, umask: int) -> None:
    before = os.umask(umask)
    try:
        out = curate(settings(), in_threads, Silent()).out
    finally:
        os.umask(before)
        shards.forget_contexts()
    work = [out / "work", *(out / "work").rglob("*")]
    open_to_others = [str(path) for path in work if path.stat().st_mode & 0o077]
    assert any(path.name == "journal.db" for path in work) and not open_to_others
    published = [out / "manifest.json", out / "README.md", out / "report.html", *(out / "data").iterdir()]
    assert {path.stat().st_mode & 0o777 for path in published} == {0o666 & ~umask}


def test_a_work_folder_that_others_could_read_is_closed(settings: Settings) -> None:
    config = settings()
    take(config.out)
    (config.out / "work").chmod(0o755)
    (config.out / "work" / "journal.db").touch(0o644)
    curate(config, in_threads, Silent())
    assert (config.out / "work").stat().st_mode & 0o777 == 0o700
    assert (config.out / "work" / "journal.db").stat().st_mode & 0o777 == 0o600
    assert json.loads((config.out / "manifest.json").read_text())["rows"]["published"]
    shutil.rmtree(config.out)
