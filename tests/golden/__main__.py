"""Write `hashes.json` from today's code."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.conftest import train_tokenizer
from tests.golden import runs


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(Path(folder) / "tokenizer")
        hashes = {name: runs.run(name, tokenizer, Path(folder) / name) for name in runs.RUNS}
    text = json.dumps({"versions": runs.versions(), "runs": hashes}, indent=1, sort_keys=True)
    runs.HASHES.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
