"""What the stages share."""

from itertools import groupby

import pyarrow as pa

from pipeline.errors import RowReject
from pipeline.models.request import Answer
from pipeline.models.thoughts import control_token

# The columns that name a query. Its samples are neighbours, in order.
QUERY = ["source", "split", "source_row"]


def query_groups(rows: pa.Table) -> list[list[int]]:
    """The indices of each query's rows, in order; rows have the columns `QUERY`."""
    names = list(zip(*(rows[column].to_pylist() for column in QUERY), strict=True))
    return [list(group) for _, group in groupby(range(rows.num_rows), key=names.__getitem__)]


def cut_off(reason: str, max_tokens: int, response: Answer) -> RowReject:
    """The reject for a response that was cut at its limit."""
    room = response.max_tokens - max_tokens
    evidence = {"max_tokens": max_tokens, "reasoning_tokens": room or None, "finish": response.end}
    return RowReject(reason, **{name: value for name, value in evidence.items() if value})


def check_control_tokens(text: str) -> None:
    """Raises RowReject for a text that holds a token of some model's chat template: no tokenizer may read it as text."""
    if token := control_token(text):
        raise RowReject("special_token_in_text", token=token, answer=text[:200])


def row_seed(seed: int, row_id: str) -> int:
    """A seed for one row, so that its response does not depend on which rows were requested before it."""
    return (seed + int(row_id[:8], 16)) % 2**31
