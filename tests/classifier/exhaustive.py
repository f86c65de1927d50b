"""What the LLM arm must equal: constrained scoring the long way round."""

from typing import Any

import torch

from classifier.llm_prompt import LabelPrompt


@torch.inference_mode()
def score_exhaustively(model: Any, prompt: LabelPrompt, text: str, max_tokens: int) -> dict[str, dict[str, float]]:
    """No cache, no draft, no batch: a whole forward pass for every node where the model has a say."""
    context = list(prompt.encode_prompt(text, max_tokens))
    found: dict[str, dict[str, float]] = {}
    for lead, trie, dimension in zip(prompt.leads, prompt.tries, prompt.schema.dimensions, strict=True):
        context += lead
        row = dict.fromkeys(dimension.names, 1.0)
        for branch, allowed in trie.branches.items():
            logits = model(torch.tensor([[*context, *branch]]), logits_to_keep=1).logits[0, -1].double()
            share = dict(zip(allowed, logits[list(allowed)].softmax(-1).tolist(), strict=True))
            for value, path in trie.scored.items():
                if len(path) > len(branch) and path[: len(branch)] == branch:
                    row[value] *= share[path[len(branch)]]
        found[dimension.name] = row
        context += trie.paths[max(row, key=row.__getitem__)]
    return found
