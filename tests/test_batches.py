"""Who gets which row of an epoch, as arithmetic: nothing here reads a file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset.batches import WINDOW_ROWS, Ragged, permutation, share, to_numpy, windows

counts = st.integers(1, 5)


def taken(rows: int, size: int, workers: int, start_row: int = 0, **options: int | bool) -> list[range]:
    """A rank's batches in the order in which a DataLoader with `workers` workers hands them out."""
    shares = [
        iter(share(rows, size, worker=w, num_workers=workers, start_row=start_row, **options))  # type: ignore[arg-type]
        for w in range(workers)
    ]
    handed = []
    while shares:
        batches = [next(batches, None) for batches in shares]
        shares = [left for left, batch in zip(shares, batches, strict=True) if batch is not None]
        handed += [batch for batch in batches if batch is not None]
    return [batch for batch in handed if batch]


def places(batches: list[range]) -> list[int]:
    return [place for batch in batches for place in batch]


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 9), counts, counts)
def test_every_row_goes_to_one_reader(rows: int, size: int, world_size: int, workers: int) -> None:
    ranks = [taken(rows, size, workers, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(place for rank in ranks for place in places(rank)) == list(range(rows))
    lengths = [len(places(rank)) for rank in ranks]
    assert max(lengths) - min(lengths) <= 1
    for rank in ranks:
        assert all(len(batch) == size for batch in rank[:-1])


@settings(deadline=None)
@given(st.integers(0, 80), st.integers(1, 9), counts, counts)
def test_without_the_last_batch_all_ranks_take_as_many_steps(
    rows: int, size: int, world_size: int, workers: int
) -> None:
    ranks = [taken(rows, size, workers, rank=r, world_size=world_size, drop_last=True) for r in range(world_size)]
    assert {len(rank) for rank in ranks} == {rows // world_size // size}
    assert all(len(batch) == size for rank in ranks for batch in rank)
    found = [place for rank in ranks for place in places(rank)]
    assert len(set(found)) == len(found) > rows - world_size * size


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 7), counts, counts, st.lists(st.integers(0, 12), max_size=3))
def test_an_epoch_goes_on_where_it_stopped_as_often_as_it_stops(
    rows: int, size: int, world_size: int, workers: int, stops: list[int]
) -> None:
    whole = taken(rows, size, workers, rank=world_size - 1, world_size=world_size)
    done = 0
    for batches in stops:
        first = taken(rows, size, workers, done, rank=world_size - 1, world_size=world_size)[:batches]
        done += len(places(first))
        rest = taken(rows, size, workers, done, rank=world_size - 1, world_size=world_size)
        assert places(rest) == places(whole)[done:]


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 7), counts, st.integers(0, 70))
def test_any_row_is_a_place_to_go_on(rows: int, size: int, workers: int, start_row: int) -> None:
    whole = taken(rows, size, workers)
    rest = taken(rows, size, workers, start_row)
    assert places(rest) == places(whole)[start_row:]
    # The batches keep their borders: only the first may be the rest of one.
    assert rest[1:] == whole[len(whole) - len(rest) + 1 :]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=6), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(0, 9)),
    st.data(),
)
def test_windows_cover_a_span_and_no_more(groups: list[list[int]], seed: int | None, data: st.DataObject) -> None:
    rows = sum(map(sum, groups))
    everything = list(windows(groups, seed, 3, range(rows)))
    assert sum(window.rows for window in everything) == rows
    assert all(WINDOW_ROWS <= window.rows < WINDOW_ROWS + 3000 for window in everything[:-1])
    listed = [group for window in everything for group in window.groups if groups[group[0]][group[1]]]
    stored = [(f, g) for f, sizes in enumerate(groups) for g, size in enumerate(sizes) if size]
    assert sorted(listed) == stored and (seed is not None or listed == stored)
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(start, rows))
    part = list(windows(groups, seed, 3, range(start, stop)))
    needed = [w for w in everything if w.first < stop and w.first + w.rows > start] if start < stop else []
    assert [(w.first, w.groups) for w in part] == [(w.first, w.groups) for w in needed]


def test_the_permutation_is_part_of_the_format() -> None:
    assert permutation(8, 0, 0, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert sorted(permutation(1000, 5, 1, 2)) == list(range(1000))
    orders = {tuple(permutation(50, *key)) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(orders) == 4


def ragged(*rows: list[int]) -> Ragged:
    values = np.array([value for row in rows for value in row], np.int32)
    return Ragged(values, np.cumsum([0, *map(len, rows)]))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=9), st.randoms(use_true_random=False))
def test_ragged_columns_behave_as_lists(rows: list[list[int]], random: object) -> None:
    column = ragged(*rows)
    assert len(column) == len(rows)
    assert [row.tolist() for row in column] == rows == [column[i].tolist() for i in range(len(rows))]
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    table = pa.table({"ids": pa.array(rows, pa.list_(pa.int32()))})
    middle = len(rows) // 2
    for part, expected in [
        (table, rows),
        (table.take(pa.array(order, pa.int64())), [rows[i] for i in order]),
        (table.slice(middle), rows[middle:]),
        (pa.concat_tables([table.slice(middle), table.slice(0, middle)]), rows[middle:] + rows[:middle]),
    ]:
        stored = to_numpy(part)["ids"]
        assert isinstance(stored, Ragged) and stored.offsets[0] == 0 and stored.values.dtype == np.int32
        assert [row.tolist() for row in stored] == expected
    assert column.lengths.tolist() == [len(row) for row in rows]


def test_padding_fills_on_the_right_and_never_cuts() -> None:
    column = ragged([1, 2, 3], [], [4])
    assert column.padded(-100).tolist() == [[1, 2, 3], [-100] * 3, [4, -100, -100]]
    assert column.padded(9, 4).tolist() == [[1, 2, 3, 9], [9] * 4, [4, 9, 9, 9]]
    assert column.padded(0).dtype == np.int32
    assert ragged().padded(0).shape == (0, 0)
    with pytest.raises(ValueError, match="3 tokens, more than the width of 2"):
        column.padded(0, 2)


def test_rows_out_of_range_are_refused() -> None:
    column = ragged([1], [2, 3])
    assert column[-1].tolist() == [2, 3]
    for row in (2, -3):
        with pytest.raises(IndexError, match="of 2"):
            column[row]
