"""How a text becomes tokens for the LLM arm, and which tokens spell each label. Training and serving share it.

<prefix: chat template, system prompt, opening of the user turn><text><suffix: rest of the template><label line><eos>
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2

from classifier.errors import BaseModelError
from classifier.schema import Dimension, Schema
from classifier.types import Labels

USER_FRAME = "Text:\n{text}"
_MARK = "@@HEED-TEXT@@"
_FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}{{ '' }}"
"""Some templates (Llama 3, SmolLM3) write today's date: tomorrow's prompt would not be the one trained on."""
ELLIPSIS = "\n[...]\n"

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LabelTrie:
    """The labels of one slot as token paths. Only at a node with several continuations does the model have a say."""

    paths: Mapping[str, Tokens]
    """Value -> its tokens, in schema order."""
    scored: Mapping[str, Tokens]
    """The same, with the token that must follow appended where one value's tokens begin another's."""
    branches: Mapping[Tokens, Tokens]
    """Node with more than one continuation -> the token ids allowed there."""

    @classmethod
    def build(cls, paths: Mapping[str, Tokens], terminator: int) -> "LabelTrie":
        def is_prefix(path: Tokens) -> bool:
            return any(other != path and other[: len(path)] == path for other in paths.values())

        if len(set(paths.values())) < len(paths):
            raise BaseModelError("the tokenizer spells two labels alike: this base model cannot tell them apart")
        scored = {name: (*path, terminator) if is_prefix(path) else path for name, path in paths.items()}
        children: dict[Tokens, dict[int, None]] = {}
        for path in scored.values():
            for depth, token in enumerate(path):
                children.setdefault(path[:depth], {})[token] = None
        branches = {node: tuple(tokens) for node, tokens in children.items() if len(tokens) > 1}
        return cls(paths=dict(paths), scored=scored, branches=branches)


@dataclass(frozen=True, slots=True)
class LabelPrompt:
    """Tokens around a text. All ids are of the base model's tokenizer."""

    tokenizer: Any
    schema: Schema
    prefix: Tokens
    suffix: Tokens
    leads: tuple[Tokens, ...]
    """Per dimension the tokens before its value: `emotion:`, `, sentiment:` …"""
    tries: tuple[LabelTrie, ...]
    eos: int
    glue: str = ""
    """What a text is encoded behind, where the tokenizer puts a space before a text that stands alone."""

    @property
    def longest_line(self) -> int:
        """Tokens of a label line at most."""
        return sum(map(len, self.leads)) + sum(max(map(len, trie.scored.values())) for trie in self.tries)

    @classmethod
    def build(cls, tokenizer: Any, schema: Schema, system: str) -> "LabelPrompt":
        """Raises BaseModelError for a tokenizer without chat template or one that merges across labels."""
        before, after = _render(tokenizer, system.strip()).split(_MARK)
        eos = tokenizer.eos_token_id
        if eos is None:
            raise BaseModelError("the base model's tokenizer has no end-of-sequence token")
        leads, paths = _spell_labels(tokenizer, schema)
        following = [*(lead[0] for lead in leads[1:]), eos]
        return cls(
            tokenizer=tokenizer,
            schema=schema,
            prefix=_encode(tokenizer, before),
            suffix=_encode_behind(tokenizer, "a", after),
            leads=leads,
            tries=tuple(LabelTrie.build(row, terminator) for row, terminator in zip(paths, following, strict=True)),
            eos=eos,
            glue="\n" if _encode_behind(tokenizer, "\n", "a") != _encode(tokenizer, "a") else "",
        )

    def encode_text(self, text: str, max_tokens: int) -> Tokens:
        """Tokens of the text alone; control tokens written in it stay plain text. Too long: head and tail are kept."""
        ids = _encode_behind(self.tokenizer, self.glue, text, split_special_tokens=True)
        if len(ids) <= max_tokens:
            return ids
        gap = _encode(self.tokenizer, ELLIPSIS)
        head = (max_tokens - len(gap)) // 2
        return ids[:head] + gap + ids[len(ids) - (max_tokens - len(gap) - head) :]

    def encode_prompt(self, text: str, max_tokens: int) -> Tokens:
        """Everything before the label line."""
        return self.prefix + self.encode_text(text, max_tokens) + self.suffix

    def encode_line(self, labels: Labels) -> Tokens:
        """The whole label line and the end of the turn: what training makes the model say."""
        line: Tokens = ()
        for lead, trie, name in zip(self.leads, self.tries, self.schema.names, strict=True):
            line += lead + trie.paths[labels[name]]
        return (*line, self.eos)


def _render(tokenizer: Any, system: str) -> str:
    user = USER_FRAME.format(text=_MARK)
    try:
        rendered = _apply_template(tokenizer, [("system", system), ("user", user)])
    except jinja2.TemplateError:
        rendered = ""
    if system not in rendered:
        # Some templates (Mistral, Gemma) have no system turn; the instructions then open the user turn.
        try:
            rendered = _apply_template(tokenizer, [("user", f"{system}\n\n{user}")])
        except jinja2.TemplateError as error:
            raise BaseModelError(f"the chat template refuses a plain user turn: {error}") from error
    if rendered.count(_MARK) != 1:
        raise BaseModelError("the chat template does not show the user's turn exactly once")
    return rendered


def _apply_template(tokenizer: Any, turns: list[tuple[str, str]]) -> str:
    if not tokenizer.chat_template:
        raise BaseModelError("the base model's tokenizer has no chat template: choose an instruction-tuned model")
    messages = [{"role": role, "content": content} for role, content in turns]
    return str(
        tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=True,
            chat_template=_FIXED_DATE + tokenizer.get_chat_template(),
            # The answer of a model that can think aloud (Qwen3) is to begin with the label line.
            enable_thinking=False,
        )
    )


def _spell_labels(tokenizer: Any, schema: Schema) -> tuple[tuple[Tokens, ...], list[dict[str, Tokens]]]:
    """The token pieces of the label line, cut where values begin and end."""
    leads: list[Tokens] = []
    paths: list[dict[str, Tokens]] = []
    for position, dimension in enumerate(schema.dimensions):
        spelled = {name: _spell(tokenizer, schema, position, dimension, name) for name in dimension.names}
        lead = next(iter(spelled.values()))[0]
        if any(other != lead for other, _ in spelled.values()):
            raise BaseModelError(f"the tokenizer merges {dimension.name!r} with its values: choose another base model")
        leads.append(lead)
        paths.append({name: path for name, (_, path) in spelled.items()})
    return tuple(leads), paths


def _spell(tokenizer: Any, schema: Schema, position: int, dimension: Dimension, value: str) -> tuple[Tokens, Tokens]:
    """(lead tokens, value tokens) as they stand in a whole label line."""
    labels = {other.name: other.names[0] for other in schema.dimensions} | {dimension.name: value}
    before = schema.line({name: labels[name] for name in schema.names[:position]})
    start = f"{before}, {dimension.name}:" if before else f"{dimension.name}:"
    whole = _encode(tokenizer, schema.line(labels))
    cuts = [_encode(tokenizer, piece) for piece in (before, start, f"{start} {value}")]
    if any(whole[: len(cut)] != cut for cut in cuts):
        raise BaseModelError(f"the tokenizer merges {value!r} with what follows it: choose another base model")
    first, second, third = (len(cut) for cut in cuts)
    return whole[first:second], whole[second:third]


def _encode(tokenizer: Any, text: str, *, split_special_tokens: bool = False) -> Tokens:
    if not text:
        return ()
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=split_special_tokens)["input_ids"])


def _encode_behind(tokenizer: Any, before: str, text: str, *, split_special_tokens: bool = False) -> Tokens:
    """Tokens of `text` as it stands behind `before`; alone, where the two merge."""
    head = _encode(tokenizer, before, split_special_tokens=split_special_tokens)
    whole = _encode(tokenizer, before + text, split_special_tokens=split_special_tokens)
    if whole[: len(head)] == head:
        return whole[len(head) :]
    return _encode(tokenizer, text, split_special_tokens=split_special_tokens)
