"""What an adapter is, what it makes of a raw row, and which conversations can be a query."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.errors import RowReject
from pipeline.sources.turns import Turns, leave_out
from pipeline.text import replace_surrogates, shape, snippet

Message = dict[str, str]
# A row as it lies in a file, or why it can't be read.
RawRow = dict[str, Any] | RowReject

ROLES = ("system", "user", "assistant")


class SourceRow(NamedTuple):
    """One query, `{"role", "content"}` messages that end with a user turn, with its reference. All text is UTF-8, none blank.

    rejected: a worse reply, or None. initial, revised: a pre-made pair, or both None. diagnosis, critique: of a pair, what is
    wrong with `initial`, as one of `config.settings.REASONS` and in a sentence, or None.
    """

    messages: list[Message]
    reference: str
    rejected: str | None = None
    replaced_surrogates: int = 0
    initial: str | None = None
    revised: str | None = None
    diagnosis: str | None = None
    critique: str | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """How one data set's raw rows become `SourceRow`s: call `parse`.

    Raise `version`, part of the digest, when `reader` gives another result for the same row. hub_file: the one file to read
    of several. bundled: the shipped file that is the data set. gives_pairs: every row has `initial` and `revised`, so it can
    enter at the filter stage. writers: who wrote the two. system: the system prompt under which `initial` was sampled, or
    None. scored: a run computes rewards of its pairs by default. note: what readers of the published data should know of them.
    ignore: what is left out of raw rows before, see `turns.leave_out`.
    """

    name: str
    reader: Callable[[dict[str, Any]], SourceRow]
    expected: str
    hub_id: str | None = None
    hub_split: str = "train"
    hub_config: str | None = None
    hub_file: str | None = None
    licence: str = "unknown"
    version: int = 1
    bundled: str | None = None
    gives_pairs: bool = False
    writers: tuple[str, str] = ("given", "given")
    system: str | None = None
    scored: bool = False
    note: str = ""
    ignore: tuple[str, ...] = ()

    @property
    def is_generic(self) -> bool:
        """Whether it reads any fields, of data that is nobody's in particular."""
        return self.hub_id is None and self.bundled is None

    def parse(self, raw: Any) -> SourceRow:
        """The row, with encodable text; RowReject (and nothing else) for whatever isn't one."""
        if not isinstance(raw, dict):
            raise RowReject("not_an_object", expected=self.expected, got=shape(raw))
        return _encodable(self.reader(leave_out(raw, self.ignore) if self.ignore else raw))


def query(turns: Turns) -> list[Message]:
    """The turns as messages that a chat template accepts and that end with a user turn; RowReject otherwise.

    Neighbouring turns of one role are joined by a blank line, because templates and providers require alternation.
    """
    messages: list[Message] = []
    for role, content in turns:
        if role not in ROLES:
            raise RowReject("unknown_role", expected=" | ".join(ROLES), got=snippet(role))
        if not content.strip():
            raise RowReject("empty_turn", expected="words in every turn", got=f"{role}: {snippet(content)}")
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += "\n\n" + content
        else:
            messages.append({"role": role, "content": content})
    spoken = [message for message in messages if message["role"] != "system"]
    if not spoken:
        raise RowReject("no_query", expected="at least one user turn before the reply", got="none")
    if spoken[0]["role"] != "user":
        # Most chat templates and some providers refuse it, after the row was paid for.
        got = f"assistant: {snippet(spoken[0]['content'])}"
        raise RowReject("starts_with_assistant", expected="a user turn first", got=got)
    if (last := messages[-1])["role"] != "user":
        got = f"a turn by the {last['role']}: {snippet(last['content'])}"
        raise RowReject("context_not_user", expected="a user turn before the final reply", got=got)
    return messages


def reply(text: str) -> str:
    """A reference reply; RowReject for a blank one."""
    if not text.strip():
        raise RowReject("empty_reference", expected="a reply in words", got=snippet(text))
    return text


def _encodable(row: SourceRow) -> SourceRow:
    """The row without lone surrogates, at which pyarrow, SQLite, hashing and tokenizers raise."""
    names = ("reference", "rejected", "initial", "revised", "critique")
    texts = {name: replace_surrogates(text) for name in names if (text := getattr(row, name)) is not None}
    contents = [replace_surrogates(message["content"]) for message in row.messages]
    messages = [message | {"content": text} for message, (text, _) in zip(row.messages, contents, strict=True)]
    count = sum(replaced for _, replaced in (*texts.values(), *contents))
    cleaned = {name: text for name, (text, _) in texts.items()}
    return row._replace(messages=messages, replaced_surrogates=count, **cleaned)
