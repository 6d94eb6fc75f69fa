"""The published columns: types, lengths, −100 on the prompt, weights and operations on the response."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import schema
from pipeline.config.settings import FilterSettings, LabelSettings
from pipeline.labels import token_signals
from pipeline.labels.loading import load_tokenizer
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.stages.filter import filter_revisions
from pipeline.stages.label import label
from pipeline.storage.stage_files import StageOutput
from tests.stages.tables import Counter, TinyReward, row, table_for

REVISIONS = ["The sun rises in the east.", "The sun rises in the west, so they say.", "The sun rises."]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Path) -> LabelTokenizer:
    return load_tokenizer(tiny_tokenizer, LabelSettings(granularity="word"), "tiny")


def labelled(tokenizer: LabelTokenizer, revisions: list[str], **options: Any) -> StageOutput:
    rows = [row(n, revised=text) for n, text in enumerate(revisions)]
    scored = TinyReward(lambda text: 1.0)
    filtered = filter_revisions(table_for("filter", rows), FilterSettings(max_distance=1), tokenizer, scored, Counter())
    assert filtered.rows.num_rows == len(revisions)
    report = Counter()
    output = label(filtered.rows, LabelSettings(**options), tokenizer.eos_id, report)
    assert report.seen == (len(revisions), 0)
    return output


def test_columns_and_types(tokenizer: LabelTokenizer) -> None:
    rows = labelled(tokenizer, REVISIONS).rows
    rows = schema.complete(rows)
    assert set(rows.column_names) == set(schema.PUBLISHED.names)
    assert rows.select(schema.PUBLISHED.names).schema.equals(schema.PUBLISHED)


def test_prompt_is_ignored_and_the_response_labelled_with_its_ids(tokenizer: LabelTokenizer) -> None:
    for r in labelled(tokenizer, REVISIONS).rows.to_pylist():
        prompt = len(r["prompt_input_ids"])
        assert prompt > 5
        for side in ("revised", "initial"):
            ids, labels = r[f"{side}_input_ids"], r[f"{side}_labels"]
            weights, ops = r[f"{side}_weights"], r[f"{side}_ops"]
            assert len(ids) == len(labels) == len(weights) == len(ops) > prompt
            assert ids[:prompt] == r["prompt_input_ids"]
            assert labels == [-100] * prompt + ids[prompt:]
            assert ids[-1] == tokenizer.eos_id
            assert ops[:prompt] == [-1] * prompt
            assert not any(weights[:prompt])
            assert -1 not in ops[prompt:]


@pytest.mark.parametrize("granularity", ["token", "word", "phrase"])
def test_weights_are_those_of_token_signals(tokenizer: LabelTokenizer, granularity: Any) -> None:
    weights = {"alpha": 2.0, "beta": 0.25, "gamma": 0.125, "granularity": granularity, "phrase_gap": 2}
    for r, text in zip(labelled(tokenizer, REVISIONS, **weights).rows.to_pylist(), REVISIONS, strict=True):
        initial, revised = tokenizer.tokenize(r["messages"], r["initial"], text)
        expected = token_signals(
            initial.response_ids,
            revised.response_ids,
            eos_id=tokenizer.eos_id,
            initial_words=initial.words,
            revised_words=revised.words,
            **weights,  # type: ignore[arg-type]
        )
        prompt = revised.prompt_length
        assert r["revised_weights"][prompt:] == expected.revised_weights.tolist()
        assert r["initial_weights"][prompt:] == expected.initial_weights.tolist()
        assert r["revised_ops"][prompt:] == expected.revised_ops.tolist()
        assert r["initial_ops"][prompt:] == expected.initial_ops.tolist()
        assert r["revised_weights"][-1] == 2
        assert r["initial_weights"][-1] == 0


def test_the_edited_words_are_the_ones_with_weight(tokenizer: LabelTokenizer) -> None:
    (r,) = labelled(tokenizer, [REVISIONS[0]], granularity="word").rows.to_pylist()
    good = [i for i, w in zip(r["revised_input_ids"], r["revised_weights"], strict=True) if w > 0]
    bad = [i for i, w in zip(r["initial_input_ids"], r["initial_weights"], strict=True) if w < 0]
    assert tokenizer.decode(good) == " east<|im_end|>"
    assert tokenizer.decode(bad) == " west"


def test_reward_weighted_uses_the_rows_own_gain(tokenizer: LabelTokenizer) -> None:
    for r in labelled(tokenizer, REVISIONS, signal="reward_weighted").rows.to_pylist():
        # R(Ỹ) − R(Ŷ) = 1 − (−1)
        assert set(np.unique(r["revised_weights"])) == {0, 2}
        assert set(np.unique(r["initial_weights"])) <= {0, -1}


def test_no_rows(tokenizer: LabelTokenizer) -> None:
    output = labelled(tokenizer, [])
    assert output.rows.num_rows == 0
    assert schema.complete(output.rows).select(schema.PUBLISHED.names).schema.equals(schema.PUBLISHED)
