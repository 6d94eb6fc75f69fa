"""Bespoke Curator answers a file of prompts: `python curator.py PROMPTS.jsonl ANSWERS.jsonl BASE_URL WORKERS`.

Its defaults, but for the address, the calls at a time, and rate limits above what the server can do: without these it keeps
to 200 requests a minute. The vocabulary that it counts tokens with is the copy that litellm brings, which saves a download.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(find_spec("litellm").origin).parent / "litellm_core_utils" / "tokenizers")

from bespokelabs import curator


class Ask(curator.LLM):
    def prompt(self, row):
        return row["prompt"]

    def parse(self, row, response):
        return {"prompt": row["prompt"], "answer": response}


if __name__ == "__main__":
    prompts, answers, url, workers = sys.argv[1:]
    limits = {"max_requests_per_minute": 1_000_000, "max_tokens_per_minute": 1_000_000_000}
    ask = Ask(
        model_name="m",
        backend="openai",
        backend_params={"base_url": url, "max_concurrent_requests": int(workers), **limits},
        generation_params={"max_tokens": 200, "temperature": 0.5},
    )
    rows = [json.loads(line) for line in Path(prompts).read_text("utf-8").splitlines()]
    answered = ask(rows).dataset
    Path(answers).write_text("".join(json.dumps(row) + "\n" for row in answered), "utf-8")
