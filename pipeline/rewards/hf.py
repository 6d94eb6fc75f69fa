"""Any sequence-classification reward model of transformers (needs the `train` extra: torch).

The answer is scored as the model's own chat template renders it (Skywork, ArmoRM); without one, as (query, answer) text
pair, which is how OpenAssistant's `reward-model-deberta-v3-large-v2` was trained. Of a model whose head its checkpoint does
not hold, or whose head is code of its own, the scores would be random: such a one is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.config.reward import RewardSettings
from pipeline.errors import ConfigError
from pipeline.labels.model_files import folder_digest
from pipeline.labels.tokenizer import hub_trouble
from pipeline.schema import digest
from pipeline.text import one_line, without_folders

if TYPE_CHECKING:
    from pipeline.rewards import Item

_AUTO = "AutoModelForSequenceClassification"
# Beyond it a batch leaves a core's cache, and is slower than its texts one by one.
_CPU_TOKENS = 1024


class SequenceClassifierReward:
    """R(X, Y) is the logit, or `score` where a model's output has one. Sorted by length into batches: little is padding."""

    def __init__(self, model_id: str, settings: RewardSettings) -> None:
        self._settings = settings
        # Threads of several shards share the model, and a tokenizer's truncation is state.
        self._turn = threading.Lock()
        self._load(model_id)
        self._device = settings.device
        if self._device == "auto":
            self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        try:
            self._model.eval().to(self._device)
        except (RuntimeError, AssertionError) as error:
            reason = one_line(error)
            raise ConfigError(f"reward.device {self._device}: not usable here: {reason}") from None
        # Nothing is generated, so no keys and values are kept: a batch needs less memory, and they aren't copied.
        self._model.config.get_text_config().use_cache = False
        self._looks_back = _looks_back(self._model)
        revision = getattr(self._model.config, "_commit_hash", None)
        files = folder_digest(model_id, weights=True)
        configured = f"hf/{model_id}" + (f"@{revision[:12]}" if revision else "")
        # Every published row has it.
        self.name = without_folders(configured)
        template = str(self._tokenizer.chat_template)
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
        trouble = hub_trouble(model_id) if folder_digest(model_id, weights=True) is None else None
        trusted, revision = self._settings.trust_remote_code, self._settings.revision
        # Without a Hub that answers, what its cache holds is taken.
        where: dict[str, Any] = {"local_files_only": trouble is not None, "revision": revision or "main"}
        try:
            # Not trusting the code needs no trust: transformers would ask at the terminal, or take another head for it.
            config = AutoConfig.from_pretrained(model_id, trust_remote_code=trusted, **where)
            if _AUTO in (getattr(config, "auto_map", None) or {}) and not trusted:
                raise ConfigError(
                    f"reward.model hf/{model_id}: its head is code that comes with the model; read that code, then set "
                    "reward.trust_remote_code=true to run it"
                )
            self._tokenizer = AutoTokenizer.from_pretrained(model_id, trust_remote_code=trusted, **where)
            self._model, told = AutoModelForSequenceClassification.from_pretrained(
                model_id,
                config=config,
                trust_remote_code=trusted,
                dtype=getattr(torch, self._settings.dtype),
                output_loading_info=True,
                **where,
            )
        except ConfigError:
            raise
        except Exception as error:  # damaged files: `tokenizers` and `safetensors` raise classes of their own
            reason = trouble or one_line(error)
            if model_id.startswith(("/", ".", "~")):
                reason = "no such folder"
            raise ConfigError(f"reward.model hf/{model_id}: can't be loaded as a folder or Hub id: {reason}") from None
        if missing := sorted(told["missing_keys"]):
            raise ConfigError(
                f"reward.model hf/{model_id}: its files lack {', '.join(missing[:3])}, which would be random: this is no "
                "sequence classifier; name the checkpoint that was trained as a reward model"
            )

    def score(self, items: Sequence[Item]) -> npt.NDArray[np.float32]:
        """Scores in the items' order, shape (n,). Texts over max_length tokens lose their beginning, not the answer."""
        with self._turn:
            inputs = self._encode(items)
            scores = np.zeros(len(inputs), np.float32)
            with self._padding(inputs) as padding:
                batches = list(self._batches([len(each["input_ids"]) for each in inputs], padded=padding is not None))
                with self._workers(len(batches)) as each_of:
                    found = each_of(lambda chosen: self._scores([inputs[i] for i in chosen], padding), batches)
                    for chosen, column in zip(batches, found, strict=True):
                        scores[chosen] = column
            return scores

    def _batches(self, lengths: list[int], *, padded: bool) -> Iterator[list[int]]:
        """Places of texts of like length. The longest first: a batch that doesn't fit into memory shows at once."""
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        while order:
            size = self._settings.batch_size if padded else 1
            if self._device == "cpu":
                size = max(1, min(size, _CPU_TOKENS // max(1, lengths[order[-1]])))
            yield order[-size:]
            del order[-size:]

    @contextmanager
    def _workers(self, batches: int) -> Iterator[Callable[..., Iterable[npt.NDArray[np.float32]]]]:
        """A `map` over batches: on a CPU each core takes batches of its own, as all of them at one batch mostly wait."""
        threads = self._torch.get_num_threads()
        if self._device != "cpu" or batches < 2 * threads:
            yield map
            return
        try:
            with ThreadPoolExecutor(threads, initializer=self._torch.set_num_threads, initargs=(1,)) as pool:
                yield pool.map
        finally:
            self._torch.set_num_threads(threads)

    @contextmanager
    def _padding(self, inputs: list[dict[str, list[int]]]) -> Iterator[int | None]:
        """What batches are padded with; None where no token would do.

        A model without padding reads its last token. With any token as padding that its texts don't have, it still does.
        """
        config = self._model.config.get_text_config()
        own = padding = config.pad_token_id
        if own is None:
            used = {token for each in inputs for token in each["input_ids"]}
            padding = next((n for n in range(config.vocab_size) if n not in used), None)
        config.pad_token_id = padding
        try:
            yield padding
        finally:
            config.pad_token_id = own

    def _encode(self, items: Sequence[Item]) -> list[dict[str, list[int]]]:
        """Token ids, and what else the model takes, of each item."""
        if not items:
            return []
        self._tokenizer.truncation_side = "left"
        cut: dict[str, Any] = {"truncation": True, "max_length": self._settings.max_length}
        if self._tokenizer.chat_template:
            whole = [[*messages, {"role": "assistant", "content": answer}] for messages, answer in items]
            texts = self._tokenizer.apply_chat_template(whole, tokenize=False)
            encoded = self._tokenizer(texts, add_special_tokens=False, **cut)
        else:
            queries = ["\n\n".join(m["content"] for m in messages) for messages, _ in items]
            encoded = self._tokenizer(queries, [answer for _, answer in items], **cut)
        names = [name for name in encoded if name != "attention_mask" or not self._looks_back]
        return [{name: encoded[name][n] for name in names} for n in range(len(items))]

    def _scores(self, inputs: list[dict[str, list[int]]], padding: int | None) -> npt.NDArray[np.float32]:
        """One batch, padded here: the tokenizer's padding need not be what the model knows as such, or be there at all."""
        length = max(len(each["input_ids"]) for each in inputs)
        fill = {"input_ids": padding or 0}
        batch = {
            name: self._torch.tensor(
                [each[name] + [fill.get(name, 0)] * (length - len(each[name])) for each in inputs], device=self._device
            )
            for name in inputs[0]
        }
        with self._torch.inference_mode():
            output = self._model(**batch)
        given = getattr(output, "score", None)
        return self._column(output.logits if given is None else given)

    def _column(self, output: Any) -> npt.NDArray[np.float32]:
        """The one score a row of an output of shape (n,) or (n, labels)."""
        table = output.float().cpu().numpy()
        table = table[:, None] if table.ndim == 1 else table
        label, labels = self._settings.label, table.shape[1]
        if (label is None and labels > 1) or (label or 0) >= labels:
            raise ConfigError(
                f"reward.model {self.name} gives {labels} numbers an answer, and reward.label is {label}: "
                f"say which is the score, from 0 to {labels - 1}"
            )
        column: npt.NDArray[np.float32] = table[:, label or 0]
        return column


def _looks_back(model: Any) -> bool:
    """Whether padding on the right changes nothing: only tokens before it are seen, and the last of these is read.

    Without a mask attention takes its causal kernel, which is quicker than any mask.
    """
    from transformers.modeling_layers import GenericForSequenceClassification

    causal = [module.is_causal for module in model.modules() if hasattr(module, "is_causal")]
    return isinstance(model, GenericForSequenceClassification) and bool(causal) and all(causal)
