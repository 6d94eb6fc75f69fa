"""Save an export of variant `tokenized` as the folder that LLaMA-Factory's `tokenized_path` names."""

import sys
from pathlib import Path

from datasets import DatasetDict, load_dataset


def main(export: str) -> None:
    train = load_dataset("parquet", data_files=str(Path(export) / "train.parquet"), split="train")
    DatasetDict(train=train).save_to_disk(Path(export) / "tokenized")


if __name__ == "__main__":
    main(sys.argv[1])
