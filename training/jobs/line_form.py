"""Teach an arm to write label lines by itself.

Serving puts every token of a line but the labels into the model's mouth, and sft teaches those labels alone: asked to
write freely, the arm writes prose. Here it learns the tokens between the labels, on the lines that it would serve, so
that its labels stay what they are.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch

from classifier.llm_prompt import LabelPrompt
from training.jobs.checkpoints import trainable
from training.jobs.config import PpoOptions
from training.jobs.label_lines import IGNORED, LineCollator, LineRow, line_loss
from training.jobs.llm_training import answer_texts
from training.jobs.runtime import Job, Stopped
from training.jobs.sft import read_after_prefix

TEXTS = 64
ROWS = 8
RATE = 3e-4
MASTERED = 0.02
"""Mean loss of a token below which there is nothing left to learn: ten such tokens in a row are right four times in
five even when sampled."""


def teach_form(job: Job, model: Any, prompt: LabelPrompt, texts: Sequence[str], options: PpoOptions) -> None:
    """At most `options.form_steps` steps on a model with an adapter to train. Raises Stopped."""
    sample = random.Random(options.seed).sample(list(texts), min(TEXTS, len(texts)))
    answers = answer_texts(model, prompt, sample, options.max_tokens)
    rows = [encode_form(text, answer, prompt, options.max_tokens) for text, answer in zip(sample, answers, strict=True)]
    collate, rng = LineCollator(prompt.eos), random.Random(options.seed)
    optimiser = torch.optim.AdamW(trainable(model).values(), lr=RATE, weight_decay=0.0)
    model.train()
    for step in range(1, options.form_steps + 1):
        if job.stop.is_set:
            raise Stopped
        batch = collate([row.as_dict() for row in rng.sample(rows, min(ROWS, len(rows)))])
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        hidden = read_after_prefix(model, prompt.prefix, inputs["input_ids"], inputs["attention_mask"])
        loss = line_loss(hidden, model.get_output_embeddings(), inputs["labels"], inputs["weight"])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        job.events.progress("learn the form", step, options.form_steps)
        job.events.metric(step, "form_loss", float(loss))
        if float(loss) < MASTERED:
            break


def encode_form(text: str, labels: dict[str, str], prompt: LabelPrompt, max_tokens: int) -> LineRow:
    """What stands around the labels is wanted, the labels themselves are not."""
    ids = list(prompt.encode_text(text, max_tokens) + prompt.suffix)
    wanted = [IGNORED] * len(ids)
    for lead, trie, name in zip(prompt.leads, prompt.tries, prompt.schema.names, strict=True):
        path = trie.paths[labels[name]]
        ids += [*lead, *path]
        wanted += [*lead, *[IGNORED] * len(path)]
    return LineRow((*ids, prompt.eos), (*wanted, prompt.eos), 1.0)
