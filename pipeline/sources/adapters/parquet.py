"""Anyone's Parquet, under a mapping of columns that is set or guessed as for JSON Lines (`jsonl.py`, `fields.py`).

    prompt: string, completion: string

gives the query and the reference. Conversations are lists of structs: list<struct<role: string, content: string>>. The
published files of a run of this project are readable too: their pairs enter at the filter stage.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.sources.adapters import jsonl
from pipeline.sources.fields import SHAPES

ADAPTER = replace(jsonl.ADAPTER, name="parquet", expected=SHAPES.replace("an object with", "a row with", 1))
