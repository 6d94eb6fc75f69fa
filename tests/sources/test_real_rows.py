"""Real hh-rlhf rows, where HH_RLHF_PATH names a file or folder of them."""

import os
from collections import Counter

import pytest

from pipeline import sources
from pipeline.errors import RowReject
from tests.sources.resolving import resolve

PATH = os.environ.get("HH_RLHF_PATH")
pytestmark = pytest.mark.skipif(not PATH, reason="HH_RLHF_PATH names no real rows")

KNOWN = {
    "empty_reference",
    "context_not_user",
    "marker_in_message",
    "empty_turn",
    "no_final_reply",
    "starts_with_assistant",
}


def test_every_real_row_is_a_correct_query_or_a_reject_with_a_reason():
    adapter = sources.get("hh-rlhf")
    counts = Counter()
    source = resolve("hh-rlhf", PATH)
    for index, record in enumerate(sources.records(source)):
        assert record.source_row == index
        assert isinstance(record.value, dict), record
        try:
            row = adapter.parse(record.value)
        except RowReject as reject:
            assert reject.reason in KNOWN, (record.where, reject.reason, reject.evidence)
            counts[reject.reason] += 1
            continue
        counts["good"] += 1
        context, _, reply = record.value["chosen"].rpartition("\n\nAssistant:")
        assert row.reference == reply.strip(), record.where
        assert row.messages[-1]["role"] == "user" and row.messages[0]["role"] == "user"
        for message in row.messages:
            assert "\n\nHuman:" not in message["content"] and "\n\nAssistant:" not in message["content"]
            assert not message["content"].startswith(("Human:", "Assistant:"))
            assert all(part in context for part in message["content"].split("\n\n"))
        if row.rejected is not None:
            other, _, worse = record.value["rejected"].rpartition("\n\nAssistant:")
            assert (other.split(), row.rejected) == (context.split(), worse.strip())
    print(dict(counts))
    assert sum(counts.values()) == index + 1
    assert counts["good"] >= 0.95 * (index + 1)
