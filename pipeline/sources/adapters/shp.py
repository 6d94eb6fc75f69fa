"""Stanford Human Preferences: a Reddit post and two comments, of which readers preferred one.

Page: https://huggingface.co/datasets/stanfordnlp/SHP   Licence: none stated (posts and comments of Reddit's users, under
Reddit's API terms)   Format as of: e94b5f3
Paper: Ethayarajh et al., Understanding Dataset Difficulty with V-Usable Information, ICML 2022, arXiv 2110.08420

    {"post_id": "qt3nxl", "domain": "askculinary_train", "history": "What is the best way to …", "score_A": 4, "score_B": 10,
     "human_ref_A": "In a pan …", "human_ref_B": "In the oven …", "labels": 0, "score_ratio": 2.5, …}

gives the query `history`, the reference "In the oven …" (labels: 1 if A is preferred, 0 if B) and the rejected reply "In a
pan …".

- A post comes once for each pair of its comments: all but the first are rejected as `duplicate_query`.
- The preferred comment has the higher score. A row that says otherwise is rejected (`label_contradicts_scores`).
- A deleted comment is no reply: as reference it is rejected (`deleted_comment`), as rejected reply it is dropped (None).
"""

from typing import Any

from pipeline.errors import RowReject
from pipeline.sources.fields import text_of
from pipeline.sources.row import Adapter, SourceRow, query, reply
from pipeline.text import shape, snippet

EXPECTED = '{"history": "…", "human_ref_A": "…", "human_ref_B": "…", "labels": 0 or 1 (1: A is preferred)}'
_DELETED = ("[deleted]", "[removed]")


def parse(raw: dict[str, Any]) -> SourceRow:
    """The post as query, the preferred comment as reference, the other one as rejected reply."""
    post, *comments = (text_of(raw, name) for name in ("history", "human_ref_A", "human_ref_B"))
    label = raw.get("labels")
    if isinstance(label, bool) or label not in (0, 1):
        raise RowReject("wrong_shape", expected="labels: 0 or 1", got=f"{snippet(label)} in {shape(raw)}")
    preferred, other = comments if label == 1 else reversed(comments)
    a, b = raw.get("score_A"), raw.get("score_B")  # files with fewer fields need not have them
    if isinstance(a, int | float) and isinstance(b, int | float) and (a < b if label == 1 else b < a):
        got = f"labels {int(label)}, score_A {snippet(a)}, score_B {snippet(b)}"
        raise RowReject("label_contradicts_scores", expected="a preferred comment with the higher score", got=got)
    if preferred.strip() in _DELETED:
        raise RowReject("deleted_comment", expected="a preferred comment in words", got=preferred.strip())
    usable = other.strip() and other.strip() not in _DELETED
    return SourceRow(query([("user", post)]), reply(preferred), other if usable else None)


ADAPTER = Adapter("shp", parse, EXPECTED, hub_id="stanfordnlp/SHP")
