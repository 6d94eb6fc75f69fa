"""From records to planned rows: ids, duplicates across sources, curation in the ledger, repaired text, a mixed run."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline import sources
from pipeline.config.loading import load_config
from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.errors import ConfigError, InputError
from pipeline.run import shards
from pipeline.run.plan import plan_shards, shard_sizes
from pipeline.schema import row_id
from pipeline.storage import stage_files
from tests.conftest import SAMPLE, Silent
from tests.sources.resolving import resolve
from tests.test_plan import config, pairs, planned, rejects_of, rows_of, times, write

MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(st.characters(codec=None))}
)


@hypothesis_settings(deadline=None)
@given(messages=st.lists(MESSAGE, max_size=3), source=st.text(), split=st.text(), index=st.integers(0, 9))
def test_ids_are_a_digest_of_plain_json(messages: list[dict[str, str]], source: str, split: str, index: int) -> None:
    text = json.dumps([source, split, messages, index], ensure_ascii=True, sort_keys=True)
    assert row_id(source, split, messages, index) == hashlib.sha256(text.encode()).hexdigest()[:16]


ROW = st.fixed_dictionaries(
    {"id": st.text(), "source_row": st.integers(0, 2**60), "sample_index": st.just(0)},
    optional={"messages": st.lists(MESSAGE.map(lambda m: m | {"content": "é\0"}), max_size=3), "reference": st.text()},
)


def test_shards_grow_slowly_and_never_depend_on_what_follows() -> None:
    sizes = list(itertools.islice(shard_sizes(load_config(None, [])), 4000))
    assert sizes[:129] == [512] * 128 + [1024] and max(sizes) == 32_768
    assert sum(sizes[:600]) > 1_000_000 and sum(sizes) > 100_000_000
    assert list(itertools.islice(shard_sizes(load_config(None, ["source.shard_rows=100000"])), 300)) == [100_000] * 300


def test_a_query_of_another_split_or_source_is_a_duplicate_and_says_of_what(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a-train.jsonl", pairs(3))
    write(folder / "b-test.jsonl", pairs(4))
    plan, _ = planned(config(folder), tmp_path / "work")
    kept, rejects = rows_of(tmp_path / "work", plan), rejects_of(tmp_path / "work", plan)
    assert kept["split"].to_pylist() == ["train"] * 3 + ["test"]
    assert [row["reason"] for row in rejects] == ["duplicate_query"] * 3
    assert [json.loads(row["evidence"])["duplicate_of"] for row in rejects] == kept["id"].to_pylist()[:3]


def test_a_duplicate_of_a_rejected_row_is_none(tmp_path: Path) -> None:
    rows = [{"question": "q?", "answer": "x" * 50}, {"question": "q?", "answer": "short"}]
    plan, _ = planned(config(write(tmp_path / "in.jsonl", rows), source__max_reference_chars=10), tmp_path / "work")
    assert rows_of(tmp_path / "work", plan)["reference"].to_pylist() == ["short"]
    assert [row["reason"] for row in rejects_of(tmp_path / "work", plan)] == ["reference_too_long"]


def test_near_duplicates_and_contaminated_rows_are_in_the_ledger(tmp_path: Path) -> None:
    text = " ".join(f"word{n}" for n in range(60))
    rows = [
        {"question": text, "answer": "a"},
        {"question": text + " more", "answer": "b"},
        {"question": "Seen: " + " ".join(f"eval{n}" for n in range(13)), "answer": "c"},
        {"question": "Another question?", "answer": "d"},
    ]
    evaluation = write(tmp_path / "eval.jsonl", [{"text": " ".join(f"Eval{n}" for n in range(20))}])
    setting = config(
        write(tmp_path / "in.jsonl", rows), source__near_duplicates=0.8, source__decontaminate=[str(evaluation)]
    )
    plan, _ = planned(setting, tmp_path / "work")
    kept = rows_of(tmp_path / "work", plan)
    assert kept["reference"].to_pylist() == ["a", "d"]
    near, seen = rejects_of(tmp_path / "work", plan)
    assert (near["reason"], near["source_row"], near["reference"]) == ("near_duplicate", 1, "b")
    evidence = json.loads(near["evidence"])
    assert evidence["duplicate_of"] == kept["id"][0].as_py() and evidence["similarity"] >= 0.8
    assert (seen["reason"], json.loads(seen["evidence"])["seen_in"]) == ("contaminated", "eval.jsonl:1")
    # Another evaluation set at the same place is another plan; the same one elsewhere is not.
    before = times(tmp_path / "work")
    evaluation.rename(tmp_path / "moved.jsonl")
    moved = config(
        tmp_path / "in.jsonl", source__near_duplicates=0.8, source__decontaminate=[str(tmp_path / "moved.jsonl")]
    )
    planned(moved, tmp_path / "work")
    assert times(tmp_path / "work") == before
    write(tmp_path / "moved.jsonl", [{"text": "nothing of the kind"}])
    plan, _ = planned(moved, tmp_path / "work")
    assert rows_of(tmp_path / "work", plan).num_rows == 3


def test_when_curation_leaves_nothing_the_plan_is_empty_and_valid(tmp_path: Path) -> None:
    plan, _ = planned(config(write(tmp_path / "in.jsonl", pairs(5)), source__min_query_chars=999), tmp_path / "work")
    assert plan.rows == 5 and rows_of(tmp_path / "work", plan).num_rows == 0
    assert {row["reason"] for row in rejects_of(tmp_path / "work", plan)} == {"query_too_short"}


def test_a_plugin_that_fails_names_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_check.py").write_text(
        "def f(messages, reference):\n    return 1 / (reference != 'answer 2') and None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write(tmp_path / "in.jsonl", pairs(5))
    with pytest.raises(ConfigError, match=r"failing_check:f failed \(ZeroDivisionError.*, at .*in\.jsonl:3$"):
        planned(config(path, source__plugins=["failing_check:f"]), tmp_path / "work")


def test_lone_surrogates_are_counted_and_other_odd_characters_kept(tmp_path: Path) -> None:
    odd = "nul \0 bom \ufeff bidi \u202e nfd e\u0301 crlf \r\n"
    lines = [
        '{"question": "\\ud800 a \\udfff", "answer": "b"}\r\n',
        '{"question": "c", "answer": "\\ud83d"}\r\n',
        json.dumps({"question": odd, "answer": odd}) + "\r\n",
    ]
    setting = config(write(tmp_path / "in.jsonl", lines))
    plan, warnings = planned(setting, tmp_path / "work")
    assert plan.replaced_surrogates == 3
    assert any("3 characters" in warning and "in 2 rows" in warning for warning in warnings)
    rows = rows_of(tmp_path / "work", plan)
    assert rows["messages"][0].as_py()[0]["content"] == "\ufffd a \ufffd"
    assert rows["messages"][2].as_py()[0]["content"] == odd == rows["reference"][2].as_py()
    # A plan that stands still knows.
    assert planned(setting, tmp_path / "work")[0] == plan


def test_thoughts_are_no_part_of_an_answer_and_are_told(tmp_path: Path) -> None:
    answers = ["<think>hm, b</think>\n\nb", "none\n</think>\n\nd", "The `<think>` tag.", "<think>\n\n</think>"]
    rows = [{"question": f"{n}?", "answer": answer} for n, answer in enumerate(answers)]
    plan, warnings = planned(config(write(tmp_path / "in.jsonl", rows)), tmp_path / "work")
    assert rows_of(tmp_path / "work", plan)["reference"].to_pylist() == ["b", "d", "The `<think>` tag."]
    assert [reject["reason"] for reject in rejects_of(tmp_path / "work", plan)] == ["empty_reference"]
    assert [warning for warning in warnings if warning.startswith("2 rows have thoughts")]


def test_what_a_pairs_first_answer_thought_is_kept_beside_it(tmp_path: Path) -> None:
    texts = {"prompt": "2 + 2?", "initial": "<think>5?</think>It is 5.", "revised": "<think>4.</think>It is 4."}
    path = write(tmp_path / "in.jsonl", [{**texts, "reference": "<think>4!</think>4"}])
    plan, _ = planned(config(path, source__enters_at="filter"), tmp_path / "work")
    (row,) = rows_of(tmp_path / "work", plan).to_pylist()
    kept = {name: row[name] for name in ("reference", "initial", "initial_reasoning", "revised")}
    assert kept == {"reference": "4", "initial": "It is 5.", "initial_reasoning": "5?", "revised": "It is 4."}


def test_a_cut_file_keeps_its_rows_and_the_limit_that_it_names_works(tmp_path: Path) -> None:
    noise = __import__("random").Random(0)
    rows = [{"question": f"{n} {noise.getrandbits(1024):x}", "answer": "a"} for n in range(3000)]
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=r"take only what comes before with --limit") as caught:
        planned(config(path, source__shard_rows=100), tmp_path / "work")
    limit = int(str(caught.value).rpartition(" ")[2])
    before = times(tmp_path / "work")
    plan, _ = planned(config(path, source__shard_rows=100, source__limit=limit), tmp_path / "work")
    assert plan.rows == limit == rows_of(tmp_path / "work", plan).num_rows > 500
    after = times(tmp_path / "work")
    assert len(before) == 2 * (limit // 100) and all(after[name] == before[name] for name in before)


def test_a_writer_that_fails_stops_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage_files, "commit", fail)
    with pytest.raises(OSError, match="No space left"):
        planned(config(write(tmp_path / "in.jsonl", pairs(3))), tmp_path / "work")
    assert not (tmp_path / "work" / "plan.json").exists()


def test_fields_given_in_a_mix_are_for_its_generic_sources(tmp_path: Path) -> None:
    own = write(tmp_path / "own.jsonl", [{"left": "q?", "right": "a"}])
    fields = {"prompt": "left", "reference": "right"}
    setting = config(own, source__name="hh-rlhf,jsonl", source__fields=fields, source__seed=1)
    source = resolve("hh-rlhf,jsonl", f"{SAMPLE},{own}", seed=1)
    plan = plan_shards(setting, source, sources.open_adapters(setting.source, source, print), tmp_path / "work", print)
    rows = rows_of(tmp_path / "work", plan)
    assert rows["reference"].to_pylist()[rows["source"].to_pylist().index("jsonl")] == "a"
    alone = resolve("hh-rlhf,hh-rlhf", f"{SAMPLE},{SAMPLE}")
    with pytest.raises(ConfigError, match="knows its own fields"):
        sources.open_adapters(setting.source, alone, print)


def test_a_mixed_run_is_published_with_each_rows_own_source(
    settings: Callable[..., CurationConfig], rows_file: Path, tmp_path: Path
) -> None:
    transcripts = [json.loads(line) for line in SAMPLE.read_text("utf-8").splitlines()[40:60]]
    other = [
        {"prompt": row["chosen"].split("\n\n")[1].removeprefix("Human: "), "response": "A reference reply in words."}
        for row in transcripts
    ]
    own = write(tmp_path / "own.jsonl", other)
    outs = []
    for workers in (1, 4):
        made = settings(
            f"out{workers}",
            source__name="hh-rlhf,jsonl",
            source__input=f"{rows_file},{own}",
            source__mix="2,1",
            run__workers=workers,
        )
        shards.forget_contexts()
        outs.append(curate(made, in_threads, Silent()))
    manifest = outs[0].manifest
    assert manifest["rows"]["read"] == 60 == manifest["rows"]["published"] + manifest["rows"]["rejected"]
    described = manifest["source"]
    assert (described["name"], described["resolved"], described["seed"]) == ("hh-rlhf,jsonl", "mix", 0)
    assert [(part["name"], part["weight"]) for part in described["parts"]] == [("hh-rlhf", 2.0), ("jsonl", 1.0)]
    assert described["parts"][1]["location"] == str(own) and described["replaced_surrogates"] == 0
    first, second = ([entry["sha256"] for entry in outcome.manifest["files"]] for outcome in outs)
    assert first == second
    work = [stage_files.read(file) for file in stage_files.inspect_all(outs[0].out / "work", "source", 4)]
    assert set(pa.concat_tables(work)["source"].to_pylist()) == {"hh-rlhf", "jsonl"}
