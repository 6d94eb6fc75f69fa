"""NeMo Data Designer answers a file of prompts: `python ask_data_designer.py PROMPTS.jsonl ANSWERS.jsonl BASE_URL WORKERS`.

The prompts are its seed data, the answers a column of text. Its defaults, but for the address, the calls at a time, the health
check, which would be one call more, and `resume`, which changes nothing in an empty folder. It profiles each data set that it
makes and counts tokens for that; the vocabulary is the copy that litellm brings, which saves a download.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(find_spec("litellm").origin).parent / "litellm_core_utils" / "tokenizers")

import data_designer.config as dd
from data_designer.interface import DataDesigner

if __name__ == "__main__":
    prompts, answers, url, workers = sys.argv[1:]
    count = len(Path(prompts).read_text("utf-8").splitlines())
    server = dd.ModelProvider(name="server", endpoint=url, api_key="OPENAI_API_KEY")
    sampling = dd.ChatCompletionInferenceParams(max_parallel_requests=int(workers), max_tokens=200, temperature=0.5)
    model = dd.ModelConfig(
        alias="m", model="m", provider=server.name, inference_parameters=sampling, skip_health_check=True
    )
    config = dd.DataDesignerConfigBuilder([model]).with_seed_dataset(dd.LocalFileSeedSource(path=prompts))
    config.add_column(dd.LLMTextColumnConfig(name="answer", model_alias=model.alias, prompt="{{ prompt }}"))
    made = DataDesigner(model_providers=[server]).create(config, num_records=count, resume="if_possible")
    rows = made.load_dataset()[["prompt", "answer"]].to_dict("records")
    Path(answers).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
