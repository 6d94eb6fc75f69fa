"""What every adapter demands of a query: the one place that decides which conversations can be asked."""

from __future__ import annotations

from pipeline.errors import RowReject
from pipeline.sources.row import Message
from pipeline.text import snippet

Turns = list[tuple[str, str]]

ROLES = ("system", "user", "assistant")


def query(turns: Turns) -> list[Message]:
    """The turns as messages that a chat template accepts and that end with a user turn; RowReject otherwise.

    Neighbours of the same role become one message, joined by a blank line: the speaker went on, and chat templates
    and providers insist on alternation. Nothing else about the texts changes.
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
        # Most chat templates and some providers refuse it, and they would after the row was paid for.
        raise RowReject(
            "starts_with_assistant", expected="a user turn first", got=f"assistant: {snippet(spoken[0]['content'])}"
        )
    if messages[-1]["role"] != "user":
        raise RowReject(
            "context_not_user",
            expected="a user turn before the final reply",
            got=f"a turn by the {messages[-1]['role']}: {snippet(messages[-1]['content'])}",
        )
    return messages


def reply(text: str) -> str:
    """A reference reply, which must say something."""
    if not text.strip():
        raise RowReject("empty_reference", expected="a reply in words", got=snippet(text))
    return text
