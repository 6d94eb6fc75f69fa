"""distilabel answers a file of prompts: `python ask_distilabel.py PROMPTS.jsonl ANSWERS.jsonl BASE_URL WORKERS`.

Its defaults, but for the address and the size of a batch, which is what it asks at a time.
"""

import json
import sys
from pathlib import Path

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

if __name__ == "__main__":
    prompts, answers, url, workers = sys.argv[1:]
    rows = [json.loads(line) for line in Path(prompts).read_text("utf-8").splitlines()]
    with Pipeline(name="ask") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": row["prompt"]} for row in rows], batch_size=int(workers))
        llm = OpenAILLM(model="m", base_url=url, generation_kwargs={"max_new_tokens": 200, "temperature": 0.5})
        load >> TextGeneration(llm=llm, input_batch_size=int(workers))
    made = ({"prompt": r["instruction"], "answer": r["generation"]} for r in pipeline.run()["default"]["train"])
    Path(answers).write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
