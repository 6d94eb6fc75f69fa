"""How the named trainers turn a row of an export into token ids: what `writing` compares with the published ones.

Each function takes the tokenizer as the trainer loads it, a row, and the column of an answer. It returns the ids of the whole
sequence and where the answer begins in it, None where the trainer doesn't look for that.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast as Tokenizer

Row = dict[str, Any]
Tokenised = tuple[list[int], int | None]
Trainer = Callable[["Tokenizer", Row, str], Tokenised]
_PLACE = "{{content}}"
_NO_THOUGHTS = "<think>\n\n</think>\n\n"


def _chat(tokenizer: "Tokenizer", row: Row, turns: list[dict[str, str]], *, prompt: bool, ids: bool = True) -> Any:
    options = row.get("chat_template_kwargs") or {}
    return tokenizer.apply_chat_template(
        turns, tokenize=ids, add_generation_prompt=prompt, **({"return_dict": True} if ids else {}), **options
    )


def trl(tokenizer: "Tokenizer", row: Row, name: str) -> Tokenised:
    """`_prepare_dataset` of TRL's SFT, DPO, KTO and TPO trainers (1.16): prompt and prompt + answer, each by itself."""
    if isinstance(row["prompt"], str):
        answer = row[name] if row[name].endswith(tokenizer.eos_token) else row[name] + tokenizer.eos_token
        prompt, whole = (tokenizer(text)["input_ids"] for text in (row["prompt"], row["prompt"] + answer))
    else:
        prompt = _chat(tokenizer, row, row["prompt"], prompt=True)["input_ids"]
        whole = _chat(tokenizer, row, row["prompt"] + row[name], prompt=False)["input_ids"]
    pairs = enumerate(zip(prompt, whole, strict=False))
    return whole, next((place for place, (one, other) in pairs if one != other), min(len(prompt), len(whole)))


def trl_messages(tokenizer: "Tokenizer", row: Row, name: str) -> Tokenised:
    """TRL's SFTTrainer on whole conversations; which tokens are the assistant's is the chat template's business."""
    return _chat(tokenizer, row, row[name], prompt=False)["input_ids"], None


def trl_prompt(tokenizer: "Tokenizer", row: Row, name: str) -> Tokenised:
    """TRL's SDFTTrainer: the prompt, behind which the model itself writes."""
    ids = _chat(tokenizer, row, row[name], prompt=True)["input_ids"]
    return ids, len(ids)


def openrlhf(tokenizer: "Tokenizer", row: Row, name: str) -> Tokenised:
    """OpenRLHF's SFTDataset and RewardDataset, with `--apply_chat_template` for conversations."""
    prompt, text = row["prompt"], ""
    if isinstance(prompt, str):
        text = prompt + row[name]
    else:
        whole = _chat(tokenizer, row, prompt + row[name], prompt=False, ids=False)
        prompt = _chat(tokenizer, row, prompt, prompt=True, ids=False)
        text = prompt + whole[len(prompt) :]
    text = text.rstrip("\n")
    text = text if text.endswith(tokenizer.eos_token) else f"{text} {tokenizer.eos_token}"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids[:-1], tokenizer.eos_token_id], len(tokenizer(prompt, add_special_tokens=False)["input_ids"])


def tis_dpo(tokenizer: "Tokenizer", row: Row, name: str) -> Tokenised:
    """The TIS-DPO authors' `tokenize_batch_element`: each part alone, then an EOS; it stops at a text with an EOS inside."""
    prompt, answer = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (row["prompt"], row[name]))
    if tokenizer.eos_token_id in prompt + answer or len(row[f"{name}_weight"]) != len(answer):
        return [], None
    return [*prompt, *answer, tokenizer.eos_token_id], len(prompt)


def llamafactory(tokenizer: "Tokenizer", row: Row, name: str) -> Tokenised:
    """LLaMA-Factory without `template`: `parse_template` takes slots from the chat template; each is encoded alone."""
    prefix, system_slot, default_system, user_slot, assistant_slot, thinks = _slots(tokenizer)
    turns = list(row["conversations"])
    system = turns.pop(0)["value"] if turns[0]["from"] == "system" else default_system
    slots = {"human": user_slot, "gpt": assistant_slot}
    parts = [prefix, system_slot.replace(_PLACE, system) if system else ""]
    parts += [slots[turn["from"]].replace(_PLACE, turn["value"]) for turn in turns]
    answer = [_NO_THOUGHTS] * thinks + [assistant_slot.replace(_PLACE, row[name]["value"])]
    prompt, answered = (
        [token for part in some if part for token in tokenizer.encode(part, add_special_tokens=False)]
        for some in (parts, answer)
    )
    return prompt + answered, len(prompt)


@cache
def _slots(tokenizer: "Tokenizer") -> tuple[str, str, str, str, str, bool]:
    """Prefix, system slot, default system prompt, user and assistant slot, and whether answers get empty thoughts."""
    prefix = tokenizer.decode(tokenizer.encode(""))

    def rendered(*turns: tuple[str, str], prompt: bool) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        return str(_chat(tokenizer, {}, messages, prompt=prompt, ids=False))[len(prefix) :]

    system = rendered(("system", _PLACE), prompt=False)
    empty = rendered(("system", ""), ("user", _PLACE), prompt=True)
    user = rendered(("user", _PLACE), prompt=True)
    assistant = rendered(("user", _PLACE), ("assistant", _PLACE), prompt=False)[len(user) :]
    thinks = "<think>" in assistant
    assistant = assistant.replace("<think>", "").replace("</think>", "").lstrip("\n")
    default_system, matched = "", 0
    if len(user) > len(empty):
        for letter in user:
            if matched == len(empty):
                break
            if letter == empty[matched]:
                matched += 1
            else:
                default_system += letter
        user = user[len(system.replace(_PLACE, default_system, 1)) :]
    if not all(_PLACE in slot for slot in (system, user, assistant)):
        raise ValueError("LLaMA-Factory stops: the chat template has no system turn of its own (Gemma, Llama 2)")
    return prefix, system, default_system, user, assistant, thinks
