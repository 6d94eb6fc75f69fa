"""Tasks whose right answers a program knows: additions with the working shown, string edits, look-ups in a text.

An answer is a list of words, digits apart. The policy's wording of a step is chosen at random, so a right answer has several
forms; the reference is another writer's: the result first. A mistake is the same slip in every answer that has it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

NAMES = "ann bob cal dan eve fay gus hal".split()
LETTERS = "abcdefgh"
# Each choice is one place of an answer's wording.
_WORDINGS = {
    "add": (("is", "gives", "makes"), ("so", "thus")),
    "edit": (("stays", "remains"), ("to", "becomes"), ("so", "thus")),
    "look": (("is", "gives", "makes"), ("so", "thus")),
}
KINDS = tuple(_WORDINGS)
WORDS = sorted(
    {*"0123456789", *LETTERS, *NAMES, *"+ ; result : replace with in ask plus then because add each".split()}
    | {word for places in _WORDINGS.values() for place in places for word in place}
)


@dataclass(frozen=True, slots=True)
class Task:
    """kind: of KINDS. values: what the query asks about. slips: whether the usual mistake changes the answer."""

    kind: str
    query: str
    values: tuple[tuple[str, ...], ...]

    @property
    def slips(self) -> bool:
        return self.result(slip=True) != self.result(slip=False)

    def result(self, *, slip: bool) -> str:
        return self._working(next(self._wordings()), slip)[1]

    def answers(self, *, slip: bool = False) -> list[str]:
        """Every wording of the answer, right or with the usual mistake."""
        return [f"{steps} ; {words[-1]} {result}" for words, steps, result in self._all(slip)]

    def reference(self) -> str:
        """Another writer's right answer: result first, then the same steps in one fixed wording."""
        _, steps, result = next(self._all(False))
        return f"result : {result} ; because {' ; then '.join(reversed(steps.split(' ; ')))}"

    def correct(self, draft: str) -> str:
        """The right answer in the wording nearest to the draft's."""
        words = draft.split()
        return min(self.answers(), key=lambda answer: Levenshtein.distance(words, answer.split()))

    def judge(self, answer: str) -> str:
        """right, slip (the usual mistake and no other) or other, whatever the wording."""
        if answer in self.answers() or answer == self.reference():
            return "right"
        return "slip" if self.slips and answer in self.answers(slip=True) else "other"

    def _all(self, slip: bool) -> Iterator[tuple[Sequence[str], str, str]]:
        for words in self._wordings():
            yield words, *self._working(words, slip)

    def _wordings(self) -> Iterator[tuple[str, ...]]:
        return itertools.product(*_WORDINGS[self.kind])

    def _working(self, words: Sequence[str], slip: bool) -> tuple[str, str]:
        steps, result = {"add": _add, "edit": _edit, "look": _look}[self.kind](self.values, words, slip)
        return " ; ".join(steps), result


def _add(values: Sequence[Sequence[str]], words: Sequence[str], slip: bool) -> tuple[list[str], str]:
    """Column by column from the right. The slip: the carry into the last column is forgotten."""
    steps, digits, carry = [], "", 0
    columns = list(zip(*(map(int, reversed(number)) for number in values), strict=True))
    for column, (one, other) in enumerate(columns):
        if slip and column == len(columns) - 1:
            carry = 0
        total = one + other + carry
        steps.append(f"{one} + {other} + {carry} {words[0]} {' '.join(f'{total:02}')}")
        carry, digits = total // 10, str(total % 10) + digits
    return steps, " ".join(str(carry) + digits)


def _edit(values: Sequence[Sequence[str]], words: Sequence[str], slip: bool) -> tuple[list[str], str]:
    """Letter by letter. The slip: the last letter is never replaced."""
    (old, new), letters = values
    last = len(letters) - 1
    changed = [new if letter == old and not (slip and n == last) else letter for n, letter in enumerate(letters)]
    steps = [
        f"{letter} {words[1]} {after}" if letter != after else f"{letter} {words[0]}"
        for letter, after in zip(letters, changed, strict=True)
    ]
    return steps, " ".join(changed)


def _look(values: Sequence[Sequence[str]], words: Sequence[str], slip: bool) -> tuple[list[str], str]:
    """Two look-ups and their sum. The slip: the second number is read one entry too far."""
    names, numbers, (first, second) = values
    where = (names.index(second) + slip) % len(names)
    one, other = numbers[names.index(first)], numbers[where]
    total = " ".join(f"{int(one) + int(other):02}")
    return [f"{first} {one}", f"{second} {other}", f"{one} + {other} {words[0]} {total}"], total


def draw(rng: random.Random) -> Task:
    kind = rng.choice(KINDS)
    if kind == "add":
        numbers = tuple(tuple(rng.choices("0123456789", k=3)) for _ in range(2))
        return Task(kind, "add " + " plus ".join(" ".join(number) for number in numbers), numbers)
    if kind == "edit":
        old, new = rng.sample(LETTERS, 2)
        letters = (*rng.choices(LETTERS[:6] + old, k=4), rng.choice((old, *LETTERS)))
        return Task(kind, f"replace {old} with {new} in {' '.join(letters)}", ((old, new), letters))
    names = tuple(rng.sample(NAMES, 4))
    numbers_ = tuple(rng.choices("0123456789", k=4))
    asked = tuple(rng.sample(names, 2))
    table = " ".join(f"{name} {number}" for name, number in zip(names, numbers_, strict=True))
    return Task(kind, f"{table} ask {asked[0]} plus {asked[1]}", (names, numbers_, asked))


def distinct(count: int, rng: random.Random, but: set[str]) -> list[Task]:
    """`count` tasks of different queries, none of them in `but`, which they join."""
    tasks: list[Task] = []
    while len(tasks) < count:
        task = draw(rng)
        if task.query not in but:
            but.add(task.query)
            tasks.append(task)
    return tasks
