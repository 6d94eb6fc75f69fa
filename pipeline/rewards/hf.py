"""Any sequence-classification reward model of transformers (needs the `train` extra: torch).

The model's own chat template renders the scored text (Skywork, ArmoRM); without one it is the text pair (query, answer), as
OpenAssistant's `reward-model-deberta-v3-large-v2` was trained. A model whose checkpoint lacks the head, or whose head is code
that is not trusted, would give random scores and is refused.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import RewardSettings
from pipeline.errors import ConfigError
from pipeline.labels.loading import folder_digest, loading
from pipeline.rewards.base import Item, RewardModel
from pipeline.schema import digest
from pipeline.text import one_line, without_folders

_AUTO = "AutoModelForSequenceClassification"
# A larger batch leaves a core's cache and is slower than its texts one by one.
_CPU_TOKENS = 1024


class SequenceClassifierReward(RewardModel):
    """R(X, Y) is the logit, or `score` where a model's output has one. Batches hold texts of similar length."""

    def __init__(self, settings: RewardSettings) -> None:
        self._settings = settings
        model_id = ModelSpec.parse(settings.model).name
        # Threads of several shards share the model and the tokenizer, whose truncation is state.
        self._lock = threading.Lock()
        self._load(model_id)
        self._device = settings.device
        if self._device == "auto":
            self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        try:
            self._model.eval().to(self._device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"reward.device {self._device}: not usable here: {one_line(error)}") from None
        config = self._model.config.get_text_config()
        # Nothing is generated, so keys and values need no memory.
        config.use_cache = False
        self._has_padding = config.pad_token_id is not None
        self._needs_no_mask = _needs_no_mask(self._model)
        revision = getattr(self._model.config, "_commit_hash", None)
        configured = f"hf/{model_id}" + (f"@{revision[:12]}" if revision else "")
        self.name = without_folders(configured)
        template, files = str(self._tokenizer.chat_template), folder_digest(model_id, weights=True)
        self.digest = digest(configured, files, settings.max_length, settings.dtype, settings.label, template)
        self.facts = {
            "kind": "sequence classifier",
            "revision": revision or settings.revision,
            "template": digest(template)[:16] if self._tokenizer.chat_template else "text pair",
            "dtype": settings.dtype,
        }

    def _load(self, model_id: str) -> None:
        try:
            import torch
            from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
        except ImportError:
            raise ConfigError(
                f"reward.model hf/{model_id} needs torch: pip install -e '.[train]', or use local/reward-head"
            ) from None
        self._torch = torch
        with loading("reward.model", model_id) as options:
            # Without trust_remote_code transformers would ask at the terminal.
            options |= {
                "revision": self._settings.revision or "main",
                "trust_remote_code": self._settings.trust_remote_code,
            }
            config = AutoConfig.from_pretrained(model_id, **options)
            if _AUTO in (getattr(config, "auto_map", None) or {}) and not self._settings.trust_remote_code:
                raise ConfigError(
                    f"reward.model hf/{model_id}: its head is code that comes with the model; read that code, then set "
                    "reward.trust_remote_code=true to run it"
                )
            self._tokenizer = AutoTokenizer.from_pretrained(model_id, **options)
            dtype = getattr(torch, self._settings.dtype)
            self._model, report = AutoModelForSequenceClassification.from_pretrained(
                model_id, config=config, dtype=dtype, output_loading_info=True, **options
            )
        if missing := sorted(report["missing_keys"]):
            raise ConfigError(
                f"reward.model hf/{model_id}: its files lack {', '.join(missing[:3])}, which would be random: this is no "
                "sequence classifier; name the checkpoint that was trained as a reward model"
            )

    def score(self, items: Sequence[Item], references: Sequence[str] = ()) -> npt.NDArray[np.float32]:
        """float32, shape (len(items),). Texts over max_length tokens lose their beginning. References are not used."""
        with self._lock:
            inputs = self._encode(items)
            padding = self._set_padding(inputs)
            batches = list(self._batches([len(each["input_ids"]) for each in inputs], padded=padding is not None))
            columns = self._map(lambda batch: self._score_batch([inputs[i] for i in batch], padding), batches)
            scores = np.zeros(len(inputs), np.float32)
            for batch, column in zip(batches, columns, strict=True):
                scores[batch] = column
            return scores

    def _encode(self, items: Sequence[Item]) -> list[dict[str, list[int]]]:
        """Token ids of each item, and the model's other inputs."""
        if not items:
            return []
        self._tokenizer.truncation_side = "left"
        cut: dict[str, Any] = {"truncation": True, "max_length": self._settings.max_length}
        if self._tokenizer.chat_template:
            conversations = [[*messages, {"role": "assistant", "content": answer}] for messages, answer in items]
            texts = self._tokenizer.apply_chat_template(conversations, tokenize=False)
            encoded = self._tokenizer(texts, add_special_tokens=False, **cut)
        else:
            queries = ["\n\n".join(m["content"] for m in messages) for messages, _ in items]
            encoded = self._tokenizer(queries, [answer for _, answer in items], **cut)
        names = [name for name in encoded if name != "attention_mask" or not self._needs_no_mask]
        return [{name: encoded[name][n] for name in names} for n in range(len(items))]

    def _set_padding(self, inputs: list[dict[str, list[int]]]) -> int | None:
        """The token that pads batches, of a model without one any that no text contains; None when there is none."""
        config = self._model.config.get_text_config()
        if not self._has_padding:
            used = {token for each in inputs for token in each["input_ids"]}
            config.pad_token_id = next((n for n in range(config.vocab_size) if n not in used), None)
        padding: int | None = config.pad_token_id
        return padding

    def _batches(self, lengths: list[int], *, padded: bool) -> Iterator[list[int]]:
        """Indices of texts of similar length, longest first: a batch too large for the memory fails at once."""
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        while order:
            size = self._settings.batch_size if padded else 1
            if self._device == "cpu":
                size = max(1, min(size, _CPU_TOKENS // max(1, lengths[order[-1]])))
            yield order[-size:]
            del order[-size:]

    def _map(self, work: Callable[[list[int]], npt.NDArray[np.float32]], batches: list[list[int]]) -> list[Any]:
        """`work` on each batch. On a CPU each core takes its own batches, since several cores on one batch mostly wait."""
        threads = self._torch.get_num_threads()
        if self._device != "cpu" or len(batches) < 2 * threads:
            return list(map(work, batches))
        try:
            with ThreadPoolExecutor(threads, initializer=self._torch.set_num_threads, initargs=(1,)) as pool:
                return list(pool.map(work, batches))
        finally:
            self._torch.set_num_threads(threads)

    def _score_batch(self, inputs: list[dict[str, list[int]]], padding: int | None) -> npt.NDArray[np.float32]:
        """The scores of one batch. Padded here, because the tokenizer may lack the model's padding token."""
        length = max(len(each["input_ids"]) for each in inputs)
        tensors = {}
        for name in inputs[0]:
            fill = padding or 0 if name == "input_ids" else 0
            rows = [each[name] + [fill] * (length - len(each[name])) for each in inputs]
            tensors[name] = self._torch.tensor(rows, device=self._device)
        with self._torch.inference_mode():
            output = self._model(**tensors)
        score = getattr(output, "score", None)
        return self._select_label(output.logits if score is None else score)

    def _select_label(self, output: Any) -> npt.NDArray[np.float32]:
        """The scores, shape (n,), in an output of shape (n,) or (n, labels)."""
        table: npt.NDArray[np.float32] = output.float().cpu().numpy()
        table = table[:, None] if table.ndim == 1 else table
        label, labels = self._settings.label, table.shape[1]
        if (label is None and labels > 1) or (label or 0) >= labels:
            raise ConfigError(
                f"reward.model {self.name} gives {labels} numbers per answer, and reward.label is {label}: "
                f"say which is the score, from 0 to {labels - 1}"
            )
        return table[:, label or 0]


def _needs_no_mask(model: Any) -> bool:
    """Whether padding on the right changes nothing, as attention is causal; without a mask it uses a faster kernel."""
    from transformers.modeling_layers import GenericForSequenceClassification

    causal = [module.is_causal for module in model.modules() if hasattr(module, "is_causal")]
    return isinstance(model, GenericForSequenceClassification) and bool(causal) and all(causal)
