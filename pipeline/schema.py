"""The columns of the working table as it grows, of the published shards and of the rejects; hashes that name rows and inputs.

The published columns are a contract. Adding one raises the minor SCHEMA_VERSION, anything else the major.
"""

import hashlib
import json

import pyarrow as pa

SCHEMA_VERSION = "1.2"

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_IDS = pa.list_(pa.int32())

SOURCE = pa.schema(
    [
        ("id", pa.string()),
        ("sample_index", pa.int32()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("source_row", pa.int64()),
        ("messages", MESSAGES),
        ("reference", pa.string()),
    ]
)
# Source columns that are passed through, as JSON; planned only where `source.keep` names some.
EXTRA = pa.field("extra", pa.string())
# Only with `policy.logprobs`: the server's tokens of the initial answer, and the log-probs of the label tokens.
INITIAL_TOKENS = pa.field("initial_tokens", pa.list_(pa.struct([("text", pa.string()), ("logprob", pa.float32())])))
INITIAL_LOGPROBS = pa.field("initial_logprobs", pa.list_(pa.float32()))
# What each stage adds.
SAMPLE = pa.schema([(name, pa.string()) for name in ("policy_model", "initial", "initial_reasoning")])
SCORE = pa.schema([("reward_model", pa.string()), ("reward_reference", pa.float32()), ("reward_initial", pa.float32())])
SELECT = pa.schema([])
REVISE = pa.schema([(name, pa.string()) for name in ("reviser_model", "diagnosis", "critique", "revised")])
# What follows from the texts and a tokenizer alone.
TOKENS = pa.schema(
    [
        ("edit_distance", pa.float32()),
        ("overlong", pa.bool_()),
        ("prompt_input_ids", _IDS),
        ("revised_input_ids", _IDS),
        ("initial_input_ids", _IDS),
        # The word to which each response token belongs; the label stage uses these up.
        ("revised_words", _IDS),
        ("initial_words", _IDS),
    ]
)
FILTER = pa.schema([*TOKENS, ("reward_revised", pa.float32())])
_LABELS = {"labels": _IDS, "weights": pa.list_(pa.float32()), "ops": pa.list_(pa.int8())}
LABEL = pa.schema([(f"{side}_{kind}", type_) for kind, type_ in _LABELS.items() for side in ("revised", "initial")])
# What `figa review` adds.
REVIEW = pa.schema([("reviewed_by", pa.string())])
STAGES = ("source", "sample", "score", "select", "revise", "filter", "label")

_PUBLISHED_ORDER = (
    "id sample_index policy_model reviser_model reward_model source split source_row messages reference initial revised "
    "diagnosis reward_reference reward_initial reward_revised edit_distance prompt_input_ids revised_input_ids "
    "initial_input_ids revised_labels initial_labels revised_weights initial_weights revised_ops initial_ops "
    "overlong initial_reasoning critique extra initial_logprobs reviewed_by"
).split()
# Columns that came with a minor version: older data sets don't have them.
SINCE = {"overlong": "1.1"} | dict.fromkeys(
    ("initial_reasoning", "critique", "extra", "initial_logprobs", "reviewed_by"), "1.2"
)
_OPTIONAL = [EXTRA, INITIAL_LOGPROBS, *REVIEW]
_FIELDS = {field.name: field for part in (SOURCE, _OPTIONAL, SAMPLE, SCORE, REVISE, FILTER, LABEL) for field in part}
PUBLISHED = pa.schema([_FIELDS[name] for name in _PUBLISHED_ORDER])

# A reject keeps the texts and scores that it had when it left; the rest is null.
REJECTED = pa.schema(
    [
        *SOURCE,
        *((name, pa.string()) for name in ("stage", "reason", "evidence", "initial", "diagnosis", "revised")),
        *((f"reward_{side}", pa.float32()) for side in ("reference", "initial", "revised")),
        ("edit_distance", pa.float32()),
    ]
)

# Parquet encodings as measured: dictionaries pay on few-valued columns only, byte-stream split on ids and labels.
_DICTIONARY = (
    "source split policy_model reviser_model reward_model diagnosis stage reason messages.list.element.role".split()
)
_FEW_VALUED = [f"{side}_{kind}.list.element" for side in ("revised", "initial") for kind in ("weights", "ops")]
_SPLIT = [
    f"{name}.list.element"
    for name in "prompt_input_ids revised_input_ids initial_input_ids revised_labels initial_labels".split()
]


def published_columns(version: str) -> pa.Schema:
    """The published columns of a schema version of this major, as far as this program knows them."""
    return pa.schema([field for field in PUBLISHED if _numbers(SINCE.get(field.name, "1.0")) <= _numbers(version)])


def complete(table: pa.Table) -> pa.Table:
    """Rows with the columns that came with a minor version: null, but `overlong` False, as 1.0 dropped such pairs."""
    for field in PUBLISHED:
        if field.name not in table.column_names and field.name in SINCE:
            value = pa.scalar(False if field.name == "overlong" else None, field.type)
            table = table.append_column(field, pa.repeat(value, table.num_rows))
    return table.select([name for name in PUBLISHED.names if name in table.column_names])


def is_newer(version: object) -> bool:
    """Whether a schema version has columns that this program doesn't know. False for what is no version."""
    return _numbers(version) > _numbers(SCHEMA_VERSION)


def _numbers(version: object) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in str(version).split("."))
    except ValueError:
        return ()


def parquet_options(schema: pa.Schema) -> dict[str, object]:
    """Keyword arguments for pyarrow's Parquet writer, for the columns that `schema` has."""
    names = set(schema.names)
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": [c for c in [*_DICTIONARY, *_FEW_VALUED] if c.split(".")[0] in names],
        "column_encoding": {c: "BYTE_STREAM_SPLIT" for c in _SPLIT if c.split(".")[0] in names} or None,
        "write_page_checksum": True,
    }


def digest(*parts: object) -> str:
    """sha256 of the canonical JSON of `parts`: the same for equal values on every machine and hash seed."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def row_id(source: str, split: str, messages: list[dict[str, str]], sample_index: int) -> str:
    """Stable name of a row: 16 hex digits over source, split, query and sample index."""
    text = json.dumps([source, split, messages, sample_index], sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
