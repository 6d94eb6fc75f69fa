"""The rows of a Parquet or Arrow file, a few at a time; refused when it holds values out of proportion to its size."""

import itertools
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pipeline.errors import InputError, RowReject
from pipeline.sources.files import Location, size
from pipeline.sources.row import RawRow
from pipeline.text import one_line, shown, snippet

# A column of one repeated value, in pages of the usual size, holds 80 to 270 values a byte; a bomb tens of thousands.
VALUES_A_BYTE = 500
UNPACKED_A_BYTE = 200
ALLOWED_VALUES = 1_000_000
ALLOWED_BYTES = 64_000_000
MAX_CHUNK_BYTES = 4_000_000_000
# Texts are compressed to a third or a tenth. A page may be as large as its chunk, and is unpacked at once.
LARGE_CHUNK_BYTES, UNPACKED_A_BYTE_IF_LARGE = 128_000_000, 20
_BATCH_ROWS = 256
# A value can be as large as the dictionary of the chunk it comes from, and be repeated in every row of a batch.
_BATCH_BYTES = 64_000_000


def rows(path: Location, max_row_bytes: int) -> Iterator[tuple[int, RawRow]]:
    """(row number from 1, row or reject). InputError for a bomb, OSError for a damaged file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    options = {"pre_buffer": False, "buffer_size": 1 << 20, "page_checksum_verification": True}
    try:
        with path.open("rb") as raw, pq.ParquetFile(raw, **options) as file:
            names = file.schema_arrow.names
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise InputError(f"{shown(path)}: two columns named {snippet(twice)}; expected each name once")
            largest = _refuse_bomb(path, file.metadata)
            batches = file.iter_batches(max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(largest, 1))))
            yield from enumerate(itertools.chain.from_iterable(_values(batch, max_row_bytes) for batch in batches), 1)
    except (pa.ArrowException, OverflowError, ValueError) as error:  # of the names in a damaged footer, too
        raise OSError(one_line(error)) from error


def arrow_rows(path: Location, max_row_bytes: int) -> Iterator[tuple[int, RawRow]]:
    """Likewise of an Arrow stream, as `save_to_disk` of Hugging Face's `datasets` writes, or an Arrow file (Feather)."""
    import pyarrow as pa

    try:
        with path.open("rb") as raw:
            if raw.peek(6).startswith(b"ARROW1"):
                reader = pa.ipc.open_file(raw)
                batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
            else:
                batches = iter(pa.ipc.open_stream(raw))
            yield from enumerate(itertools.chain.from_iterable(_in_proportion(batches, path, max_row_bytes)), 1)
    except (pa.ArrowException, OverflowError, ValueError) as error:
        raise OSError(one_line(error)) from error


def _in_proportion(batches: Iterator[Any], path: Location, max_row_bytes: int) -> Iterator[Iterator[RawRow]]:
    unpacked = 0
    for batch in batches:
        unpacked += batch.nbytes
        if size(path) >= 0 and unpacked > ALLOWED_BYTES + UNPACKED_A_BYTE * size(path):
            raise InputError(f"{shown(path)}: refused: {size(path):,} bytes of Arrow unpack to over {unpacked:,}")
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            yield _values(batch.slice(start, _BATCH_ROWS), max_row_bytes)


def _refuse_bomb(path: Location, footer: Any) -> int:
    """The bytes that a row can take: those of a group's chunks with dictionaries, unpacked. InputError for a bomb."""
    on_disk = max(size(path), 0) or footer.serialized_size
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = [[group.column(index) for index in range(group.num_columns)] for group in groups]
    chunks = list(itertools.chain.from_iterable(columns))
    values = sum(chunk.num_values for chunk in chunks)
    unpacked = [chunk.total_uncompressed_size for chunk in chunks]
    largest = max(unpacked, default=0)
    packed = sum(chunk.total_compressed_size for chunk in chunks if chunk.total_uncompressed_size == largest)
    for what, announced, allowed in (
        ("values", max(values, footer.num_rows), ALLOWED_VALUES + VALUES_A_BYTE * on_disk),
        ("unpacked bytes", sum(unpacked), ALLOWED_BYTES + UNPACKED_A_BYTE * on_disk),
        ("unpacked bytes in one column chunk", largest, MAX_CHUNK_BYTES),
        ("unpacked bytes in a chunk", largest, max(LARGE_CHUNK_BYTES, UNPACKED_A_BYTE_IF_LARGE * packed)),
    ):
        if announced > allowed:
            announces = f"{on_disk:,} bytes of Parquet announce {announced:,} {what}; expected at most {allowed:,}"
            hint = "If the data is real, write it without so much repetition"
            raise InputError(f"{shown(path)}: refused: {announces}. {hint}")
    repeated = ([c.total_uncompressed_size for c in group if c.has_dictionary_page] for group in columns)
    return max(map(sum, repeated), default=0)


def _values(batch: Any, max_row_bytes: int) -> Iterator[RawRow]:
    if batch.nbytes <= max_row_bytes:
        with suppress(Exception):  # of one of these rows: below, each is read alone
            yield from batch.to_pylist(maps_as_pydicts="strict")
            return
    yield from (_value(batch.slice(index, 1), max_row_bytes) for index in range(batch.num_rows))


def _value(row: Any, max_row_bytes: int) -> RawRow:
    if row.nbytes > max_row_bytes:
        return RowReject("row_too_large", expected=f"at most {max_row_bytes:,} bytes", got=f"{row.nbytes:,} bytes")
    try:
        [value] = row.to_pylist(maps_as_pydicts="strict")
    except UnicodeDecodeError as error:
        got = repr(error.object[error.start : error.start + 12])
        return RowReject("invalid_utf8", expected="UTF-8", byte=error.start, got=got)
    except Exception as error:  # a date in the year 100,000, an unknown time zone: each library has its own
        expected = "values that Python can hold; leave out the columns that aren't needed"
        return RowReject("unreadable_value", expected=expected, got=f"{type(error).__name__}: {snippet(str(error))}")
    return dict(value)
