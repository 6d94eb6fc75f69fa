"""What the stages share."""

from itertools import groupby

import pyarrow as pa

# The columns that name a query. Its samples are neighbours, in order.
QUERY = ["source", "split", "source_row"]


def query_groups(rows: pa.Table) -> list[list[int]]:
    """The indices of each query's rows, in order; rows have the columns `QUERY`."""
    names = list(zip(*(rows[column].to_pylist() for column in QUERY), strict=True))
    return [list(group) for _, group in groupby(range(rows.num_rows), key=names.__getitem__)]


def row_seed(seed: int, row_id: str) -> int:
    """A seed for one row, so that its response does not depend on which rows were requested before it."""
    return (seed + int(row_id[:8], 16)) % 2**31
