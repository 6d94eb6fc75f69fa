import pytest

from pipeline import sources
from pipeline.errors import RowReject

PARSE = sources.get("shp").parse


def row(label=1, **more):
    return {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": label} | more


def reason(raw):
    with pytest.raises(RowReject) as caught:
        PARSE(raw)
    return caught.value.reason


def test_the_label_says_which_comment_is_preferred():
    for label, reference, rejected in ((1, "a", "b"), (0, "b", "a")):
        parsed = PARSE(row(label))
        assert (parsed.messages, parsed.reference, parsed.rejected) == (
            [{"role": "user", "content": "q"}],
            reference,
            rejected,
        )


def test_scores_must_agree_with_the_label():
    assert PARSE(row(1, score_A=9, score_B=2)).reference == "a"
    assert PARSE(row(1, score_A=2, score_B=2)).reference == "a"
    assert reason(row(0, score_A=9, score_B=2)) == "label_contradicts_scores"
    assert reason(row(1, score_A=2, score_B=9)) == "label_contradicts_scores"
    assert reason(row(1, score_A=2, score_B=10**5000)) == "label_contradicts_scores"


@pytest.mark.parametrize("label", [None, True, 2, -1, "1", [1], float("nan"), pytest.param(10**5000, id="long")])
def test_another_label_is_refused(label):
    assert reason(row(label)) == "wrong_shape"


def test_deleted_comments_are_no_replies():
    assert reason(row(human_ref_A=" [deleted] ")) == "deleted_comment"
    assert PARSE(row(human_ref_B="[removed]")).rejected is None
    assert PARSE(row(human_ref_B=" ")).rejected is None
    assert reason(row(human_ref_A=" ")) == "empty_reference"
