"""The fixtures: what rejects each line of them, by adapter. Every other line is a row."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "fixtures"
REJECTS: dict[str, dict[int, str]] = {
    "hh-rlhf": {36: "empty_reference", 37: "marker_in_message", 38: "no_final_reply", 39: "wrong_shape"},
    "sharegpt": {
        **dict.fromkeys((37, 38, 39), "html_remnants"),
        40: "wrong_shape",
        41: "no_query",
        42: "no_final_reply",
        43: "unsupported_content",
        44: "empty_reference",
        45: "wrong_shape",
    },
    "shp": {
        34: "label_contradicts_scores",
        35: "deleted_comment",
        37: "wrong_shape",
        38: "empty_turn",
        40: "wrong_shape",
    },
    "synthetic-gptj": {36: "empty_reference", 37: "empty_turn", 38: "wrong_shape"},
    "openorca": {35: "empty_reference", 36: "wrong_shape", 37: "wrong_shape"},
    "alpaca": {35: "empty_reference", 36: "empty_reference", 38: "wrong_shape"},
    "ultrafeedback": {36: "empty_reference", 39: "wrong_shape", 40: "no_final_reply"},
    "spa": {36: "empty_initial", 37: "empty_revision", 38: "wrong_shape"},
    "helpsteer3-edit": {
        33: "empty_initial",
        34: "empty_revision",
        35: "wrong_shape",
        36: "wrong_shape",
        37: "context_not_user",
        38: "unsupported_content",
    },
    "aligner": {35: "empty_turn", 36: "empty_initial", 37: "wrong_shape", 38: "empty_revision"},
    "clair": {33: "empty_initial", 34: "empty_revision", 35: "wrong_shape", 36: "empty_turn"},
    "jsonl": {34: "wrong_shape", 35: "wrong_shape", 36: "not_an_object", 37: "duplicate_key", 38: "malformed_json"},
}
# Rows whose query a row before them has: found out when the run is planned.
DUPLICATES = {
    "shp": {33},
    "synthetic-gptj": {39},
    "openorca": {38},
    "alpaca": {39},
    "spa": {40},
}


def path(name: str) -> Path:
    return FOLDER / f"{name}.jsonl"
