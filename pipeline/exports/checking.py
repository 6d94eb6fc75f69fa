"""Compares what a trainer makes of an export's rows with the published ids."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.errors import ConfigError, CurationError, RowReject, UsageError
from pipeline.exports import trainers
from pipeline.exports.formats import Format
from pipeline.exports.trainers import Row
from pipeline.labels.loading import difference, open_plain, open_tokenizer, settings_of
from pipeline.labels.tokenizer import LabelTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SIDES = ("revised", "initial", "reference")


class Checker:
    """Converts pairs into one variant's rows and compares them. columns: what it adds to the variant's own."""

    def __init__(self, format: Format, variant: str, labels: LabelTokenizer, plain: "PreTrainedTokenizerFast") -> None:
        self._format, self._name, self._variant = format, variant, format.variants[variant]
        self._labels, self._plain = labels, plain
        options = labels.settings.template_options
        passed = (
            options and not self._variant.rendered and self._variant.trainer in (trainers.trl, trainers.trl_messages)
        )
        self._options = {"chat_template_kwargs": options} if passed else {}
        self.columns = {name: pa.array([value]).type for name, value in self._options.items()}
        # What the tokenizer puts before a text by itself: a BOS, or nothing.
        probe = plain("a", return_special_tokens_mask=True)
        self._begin = plain.decode(probe["input_ids"][: probe["special_tokens_mask"].index(0)])

    def convert(self, pair: Row) -> list[Row]:
        """A pair's rows. Raises RowReject: tokenised_otherwise; for exact texts also those of `LabelTokenizer.tokenize`."""
        if self._variant.rendered:
            pair = pair | {"texts": self._texts(pair)}
        rows = [row | self._options for row in self._variant.convert(pair)]
        for row, names in zip(rows, self._variant.answers, strict=True):
            for name, side in names.items():
                # A reference has no published ids.
                if side != "reference" and not self._equal(pair, row, name, side):
                    raise RowReject("tokenised_otherwise")
        return rows

    def _texts(self, pair: Row) -> dict[str, str]:
        """The exact text of the prompt and of the answers that the variant needs, without what the trainer adds by itself."""
        sides = [side for side in _SIDES if any(side in names.values() for names in self._variant.answers)]
        prompt, answers = self._labels.texts(pair["messages"], *(pair[side] for side in sides))
        if self._variant.trainer is trainers.trl:
            prompt = prompt.removeprefix(self._begin)
        if self._variant.trainer is not trainers.openrlhf:
            answers = [answer.removesuffix(str(self._plain.eos_token)) for answer in answers]
        return {"prompt": prompt, **dict(zip(sides, answers, strict=True))}

    def _equal(self, pair: Row, row: Row, name: str, side: str) -> bool:
        if self._labels.dated and not self._variant.rendered:
            return False  # the trainer would write the day of the training
        try:
            ids, start = self._variant.trainer(self._plain, row, name)
        except Exception:  # a chat template may raise anything
            return False
        published, prompt = pair[f"{side}_input_ids"], len(pair["prompt_input_ids"])
        # Behind the end token a chat template may write more, such as a line feed; an exact text has no such tail.
        exact = self._variant.rendered or side == "prompt"
        same = ids == published if exact else ids[: len(published)] == published
        return same and start in (prompt, None)

    def probe(self, pairs: list[Row]) -> None:
        """Raise UsageError when the trainer would see most pairs otherwise than they are labelled."""
        if self._share(pairs) * 2 >= len(pairs):
            return
        others = [
            name
            for name, variant in self._format.variants.items()
            if not variant.answers or Checker(self._format, name, self._labels, self._plain)._share(pairs) == len(pairs)
        ]
        instead = f"--variant {' or '.join(others)}" if others else "--format sequences"
        raise UsageError(
            f"--format {self._format.name}, variant {self._name}: with the tokenizer {self._labels.name} its trainer would not "
            f"see the published sequences; {instead} gives those"
        )

    def _share(self, pairs: list[Row]) -> int:
        equal = 0
        for pair in pairs:
            try:
                self.convert(pair)
                equal += 1
            except RowReject:
                pass
        return equal


def open_checker(labels: dict[str, Any], format: Format, variant: str, warn: Callable[[str], None]) -> Checker | None:
    """None for a variant that needs none, or when the labels' tokenizer is gone, which is a warning.

    Raises ConfigError when it is gone and the variant has exact texts.
    """
    if not format.variants[variant].answers:
        return None
    name = str(labels["tokenizer"])
    try:
        tokenizer = open_tokenizer(name, settings_of(labels))
        if differs := difference(labels, tokenizer):
            raise ConfigError(
                f"labels.tokenizer {name}: is not the one that the labels were made with: {differs}; restore it, or export "
                "another variant"
            )
        return Checker(format, variant, tokenizer, open_plain(name))
    except CurationError as error:
        if format.variants[variant].rendered:
            raise
        warn(f"not compared with the published sequences: {error}")
        return None
