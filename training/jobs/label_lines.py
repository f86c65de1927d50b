"""Rows as label lines for the LLM arm: the same tokens that serving reads, and a loss on the label slots alone."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from classifier.llm_prompt import LabelPrompt
from training.corpus.rows import Row, likeliest

IGNORED = -100
PAD_STEP = 8
"""Batches come in few widths: the first pass of every new shape pays for planning its kernels."""


@dataclass(frozen=True, slots=True)
class LineRow:
    """`ids` follow the shared prefix: text, suffix, label line. `labels` are IGNORED outside the known slots."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    weight: float

    def as_dict(self) -> dict[str, Any]:
        return {"input_ids": self.ids, "labels": self.labels, "weight": self.weight, "length": len(self.ids)}


def encode_lines(
    rows: Sequence[Row], prompt: LabelPrompt, max_tokens: int, *, slot_noise: float = 0, seed: int = 0
) -> list[LineRow]:
    """Rows with no slot that has one value (unknown, a set, a tie) are left out.

    `slot_noise` is the share of slots that later slots see filled with another value. Taught with true slots alone, the
    model reads the risk off the emotion before it instead of off the text, and an emotion that it guessed wrong then
    decides the risk. The noise of a row depends on the seed and its id alone.
    """
    encoded = (
        encode_line(row, prompt, max_tokens, slot_noise=slot_noise, rng=random.Random(f"{seed}:{row.id}"))
        for row in rows
    )
    return [line for line in encoded if line is not None]


def encode_line(
    row: Row, prompt: LabelPrompt, max_tokens: int, *, slot_noise: float = 0, rng: random.Random | None = None
) -> LineRow | None:
    """The line holds the known slots only: an unknown label is never put into the model's mouth."""
    rng = rng or random.Random(row.id)
    known = {name: value for name in prompt.schema.names if (value := likeliest(row.labels.get(name))) is not None}
    if not known:
        return None
    ids = list(prompt.encode_text(row.text, max_tokens) + prompt.suffix)
    labels = [IGNORED] * len(ids)
    for place, name in enumerate(known):
        lead, path = _spell_slot(prompt, name, known[name], is_first=place == 0)
        wanted: Sequence[int] = path
        if place < len(known) - 1 and rng.random() < slot_noise:
            other = rng.choice([value for value in prompt.schema[name].names if value != known[name]])
            _, shown = _spell_slot(prompt, name, other, is_first=place == 0)
            # Up to the token where the two part, the model has seen nothing wrong: so far the true value is taught.
            wanted = [path[at] if at < len(path) and path[:at] == shown[:at] else IGNORED for at in range(len(shown))]
            path = shown
        ids += [*lead, *path]
        labels += [*[IGNORED] * len(lead), *wanted]
    if len(known) == len(prompt.schema.names):
        ids.append(prompt.eos)
        labels.append(prompt.eos)
    return LineRow(tuple(ids), tuple(labels), row.weight)


def _spell_slot(prompt: LabelPrompt, name: str, value: str, *, is_first: bool) -> tuple[Sequence[int], Sequence[int]]:
    position = prompt.schema.names.index(name)
    lead: Sequence[int] = prompt.leads[position]
    if is_first and position > 0:
        # Its usual lead begins with the comma after the slot before, which this line does not have.
        lead = prompt.tokenizer(f"{name}:", add_special_tokens=False)["input_ids"]
    return lead, prompt.tries[position].paths[value]


@dataclass(frozen=True, slots=True)
class LineCollator:
    """Left padding, so that all label lines end in the same column and logits are computed for the last few alone."""

    pad_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask`, `labels` `[B, T]`; `weight` `[B]`."""
        longest = -(-max(len(row["input_ids"]) for row in rows) // PAD_STEP) * PAD_STEP
        gaps = [longest - len(row["input_ids"]) for row in rows]
        pairs = list(zip(gaps, rows, strict=True))
        return {
            "input_ids": torch.tensor([[*[self.pad_id] * gap, *row["input_ids"]] for gap, row in pairs]),
            "attention_mask": torch.tensor([[0] * gap + [1] * (longest - gap) for gap in gaps]),
            "labels": torch.tensor([[*[IGNORED] * gap, *row["labels"]] for gap, row in pairs]),
            "weight": torch.tensor([float(row["weight"]) for row in rows]),
        }


def line_loss(hidden: Tensor, head: nn.Module, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean negative log-likelihood of the label tokens, each row's tokens weighted by its weight.

    `hidden` `[B, T, H]` are the last hidden states, `head` turns them into logits; `labels` `[B, T]`, `weight` `[B]`.
    The vocabulary is large and few positions hold a label: the head reads only the states before those.
    """
    wanted = labels[:, 1:]
    known = wanted != IGNORED
    log_p = torch.log_softmax(head(hidden[:, :-1][known]).float(), -1)
    picked = log_p.gather(-1, wanted[known].unsqueeze(-1)).squeeze(-1)
    share = weight.unsqueeze(-1).expand_as(wanted)[known]
    return -(picked * share).sum() / share.sum().clamp(min=1e-9)
