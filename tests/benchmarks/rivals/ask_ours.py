"""This project's call layer answers a file of prompts: `python ask_ours.py PROMPTS.jsonl ANSWERS.jsonl BASE_URL WORKERS`.

Its defaults, but for the address and the calls at a time. The journal is beside the answers.
"""

import json
import sys
from pathlib import Path

from pipeline.config.settings import PolicySettings
from pipeline.models import factory
from pipeline.models.cost import Budget
from pipeline.models.event_loop import each_row
from pipeline.models.journal import Journal
from pipeline.models.request import ChatRequest

if __name__ == "__main__":
    prompts, answers, url, workers = sys.argv[1:]
    rows = [json.loads(line) for line in Path(prompts).read_text("utf-8").splitlines()]
    settings = PolicySettings(model=f"openai/m@{url}", api_key_env="OPENAI_API_KEY", concurrency=int(workers))
    journal = Journal(Path(answers).with_suffix(".db"))
    model = factory.chat_model(settings, journal=journal, budget=Budget(None, 0.0), local_file=Path)

    def ask(row):
        return model.ask("sample", ChatRequest([{"role": "user", "content": row["prompt"]}], 200, {"temperature": 0.5}))

    answered = each_row(rows, ask, workers=int(workers))
    made = ({"prompt": row["prompt"], "answer": answer.text} for row, answer in zip(rows, answered, strict=True))
    Path(answers).write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
    journal.close()
