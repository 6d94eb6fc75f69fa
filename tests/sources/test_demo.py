"""The demo's rows: queries of the bundled sample, drafts with small corrections, and who wrote what."""

import json
import re
from collections import Counter

import pytest
from rapidfuzz.distance import Levenshtein

from pipeline import sources
from pipeline.config.settings import REASONS, LabelSettings
from pipeline.errors import InputError
from pipeline.labels.loading import open_tokenizer
from pipeline.sources.adapters.demo import POLICY
from tests.conftest import ROOT, SAMPLE
from tests.sources.resolving import resolve

ROWS = [json.loads(line) for line in (ROOT / "data" / "demo.jsonl").read_text("utf-8").splitlines()]
# Signs of style that the policy doesn't use: a revision keeps the draft's.
FOREIGN = "—–“”’…"


def test_all_rows_are_pairs():
    adapter = sources.get("demo")
    records = list(sources.records(resolve("demo")))
    parsed = [adapter.parse(record.value) for record in records]
    assert len(parsed) == len(ROWS) >= 64
    names = ("messages", "reference", "initial", "revised", "diagnosis", "critique")
    assert [{name: getattr(row, name) for name in names} for row in parsed] == [
        {name: row[name] for name in names} for row in ROWS
    ]


def test_queries_and_references_are_the_bundled_samples():
    adapter = sources.get("hh-rlhf")
    sample = [adapter.parse(json.loads(line)) for line in SAMPLE.read_text("utf-8").splitlines()]
    own = [row for row in ROWS if row["sample_row"] is not None]
    assert 50 <= len(own) < len(ROWS), "some are in other languages, and not of the sample"
    for row in own:
        assert (row["messages"], row["reference"]) == sample[row["sample_row"]][:2]
    assert len({json.dumps(row["messages"]) for row in ROWS}) == len(ROWS)


def test_every_fault_is_named_and_all_four_kinds_are_there():
    counts = Counter(row["diagnosis"] for row in ROWS)
    assert set(counts) == set(REASONS) and min(counts.values()) >= 8
    assert max(counts.values()) <= len(ROWS) / 2
    assert sum(len(row["messages"]) > 1 for row in ROWS) >= 12
    for row in ROWS:
        assert re.fullmatch(r"\S.{20,200}\.", row["critique"]), row["critique"]
        assert not re.search(r"[.!?] ", row["critique"]), "one sentence"


def test_the_card_counts_them():
    card = (ROOT / "data" / "README.md").read_text("utf-8")
    counts = Counter(row["diagnosis"] for row in ROWS)
    kinds = ("inaccuracy", "lack_of_detail", "other", "structure")
    assert f"| `demo.jsonl` | {len(ROWS)} finished pairs" in card
    assert "| {} / {} / {} / {} |".format(*(counts[kind] for kind in kinds)) in card


def test_revisions_are_small_corrections():
    tokenizer = open_tokenizer(POLICY, LabelSettings())
    distances = []
    for row in ROWS:
        initial, revised, reference = tokenizer.tokenize(
            row["messages"], row["initial"], row["revised"], row["reference"]
        )
        distances.append(Levenshtein.normalized_distance(initial.response_ids, revised.response_ids))
        assert Levenshtein.normalized_distance(reference.response_ids, revised.response_ids) > 0.3, "no copy"
        assert not [sign for sign in FOREIGN if sign in row["revised"] and sign not in row["initial"]], row["revised"]
    assert min(distances) > 0.05 and max(distances) < 0.8
    assert sum(0.1 <= distance <= 0.6 for distance in distances) >= 0.7 * len(distances)


@pytest.mark.parametrize("place", [{"input": str(SAMPLE)}, {"revision": "main"}, {"split": "train"}])
def test_it_can_not_be_read_from_elsewhere(place):
    with pytest.raises(InputError, match=r"'demo' ships with the program.*leave --input"):
        resolve("demo", **place)
