"""A text on its way through the LLM: the drafted label line as a token tree, and the labels read off its nodes.

Where the tree is scored does not matter here: by the model in this process, or by a server elsewhere.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from classifier.llm_prompt import LabelPrompt, LabelTrie, Tokens

Floats = np.ndarray[Any, np.dtype[np.float64]]

ReadNode = Callable[[int, Tokens], Floats]
"""(node, tokens) -> what the model thinks of each as the next one: logits or log-probabilities."""


@dataclass(slots=True)
class TokenTree:
    """Tokens with parents; node 0 is the anchor, the last token before the first open slot."""

    tokens: list[int]
    parents: list[int] = field(default_factory=lambda: [-1])
    depths: list[int] = field(default_factory=lambda: [0])
    children: dict[tuple[int, int], int] = field(default_factory=dict)

    def extend(self, node: int, path: Tokens) -> int:
        """The node at the end of `path` below `node`; steps that exist are shared."""
        for token in path:
            if (node, token) not in self.children:
                self.children[node, token] = len(self.tokens)
                self.tokens.append(token)
                self.parents.append(node)
                self.depths.append(self.depths[node] + 1)
            node = self.children[node, token]
        return node

    def path_to(self, node: int) -> Tokens:
        """The tokens from the anchor, itself left out, to `node`."""
        path: list[int] = []
        while node > 0:
            path.append(self.tokens[node])
            node = self.parents[node]
        return tuple(reversed(path))

    def ancestry(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """`[n, n]`, True where the column is an ancestor of the row or the row itself."""
        size = len(self.tokens)
        mask = np.eye(size, dtype=bool)
        for node in range(1, size):
            mask[node] |= mask[self.parents[node]]
        return mask


class Habits:
    """Which line usually comes of the labels decided so far: what to draft once a draft has turned out wrong.

    A wrong emotion mostly brings other labels with it. Drafts never change an answer; nor does this. Thread-safe.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[str, ...], Counter[tuple[str, ...]]] = {}
        self._lock = threading.Lock()

    def note(self, line: tuple[str, ...]) -> None:
        with self._lock:
            for length in range(1, len(line)):
                self._lines.setdefault(line[:length], Counter())[line] += 1

    def complete(self, decided: tuple[str, ...]) -> tuple[str, ...] | None:
        """The whole line, or None where these labels never came together."""
        with self._lock:
            lines = self._lines.get(decided)
            return lines.most_common(1)[0][0] if lines else None


@dataclass(slots=True)
class LineInProgress:
    """One text under way. `pending` are tokens already certain but not yet read by the model, the anchor last."""

    position: int
    """Index in the batch as given."""
    draft: dict[str, str]
    pending: Tokens
    slot: int = 0
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    tree: TokenTree = field(default_factory=lambda: TokenTree([0]))
    roots: dict[int, int] = field(default_factory=dict)
    """Slot -> tree node its value hangs on."""

    def is_done(self, prompt: LabelPrompt) -> bool:
        return self.slot == len(prompt.tries)

    def plant_tree(self, prompt: LabelPrompt) -> None:
        """The rest of the drafted line, and beside it every trie branch where the model must be asked."""
        names = prompt.schema.names
        self.tree, self.roots = TokenTree([self.pending[-1]]), {}
        root = 0
        for slot in range(self.slot, len(names)):
            trie = prompt.tries[slot]
            self.roots[slot] = root
            for branch in trie.branches:
                self.tree.extend(root, branch)
            if slot + 1 < len(names):
                root = self.tree.extend(root, trie.paths[self.draft[names[slot]]] + prompt.leads[slot + 1])

    def open_nodes(self, prompt: LabelPrompt) -> Iterator[tuple[int, Tokens]]:
        """(node, tokens allowed there) wherever the model has a say in the planted tree."""
        for slot, root in self.roots.items():
            for branch, allowed in prompt.tries[slot].branches.items():
                yield self.tree.extend(root, branch), allowed

    def accept(self, prompt: LabelPrompt, read: ReadNode, habits: Habits) -> int:
        """Read slots off until the draft and the model differ. Returns the last node that stays valid."""
        names = prompt.schema.names
        root = 0
        for slot in range(self.slot, len(names)):
            trie, root = prompt.tries[slot], self.roots[slot]
            found = self.probabilities[names[slot]] = read_slot(self.tree, root, trie, read)
            choice = max(trie.paths, key=found.__getitem__)
            is_as_drafted = choice == self.draft[names[slot]]
            self.draft[names[slot]] = choice
            self.slot = slot + 1
            if self.slot == len(names):
                habits.note(tuple(self.draft[name] for name in names))
            elif not is_as_drafted:
                self.pending = trie.paths[choice] + prompt.leads[slot + 1]
                line = habits.complete(tuple(self.draft[name] for name in names[: self.slot]))
                self.draft.update(zip(names, line or (), strict=False))
                break
        return root


def read_slot(tree: TokenTree, root: int, trie: LabelTrie, read: ReadNode) -> dict[str, float]:
    """P(value) = product over the branching nodes on its path of softmax over the continuations allowed there."""
    log_p = dict.fromkeys(trie.scored, 0.0)
    for branch, allowed in trie.branches.items():
        row = read(tree.extend(root, branch), allowed)
        row = row - row.max()
        row = row - np.log(np.exp(row).sum())
        for value, path in trie.scored.items():
            if len(path) > len(branch) and path[: len(branch)] == branch:
                log_p[value] += float(row[allowed.index(path[len(branch)])])
    weights = {value: float(np.exp(log)) for value, log in log_p.items()}
    total = sum(weights.values())
    return {value: weight / total for value, weight in weights.items()}
