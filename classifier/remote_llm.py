"""The LLM arm on a server: it answers by the OpenAI-compatible `/v1/completions` what a model in this process would.

The same token tree as in `llm.py`; its open nodes are sent as prompts of token ids, so no text of a user can turn into
control tokens there, and one token is asked for after each. A text that the server fails on gets no scores: the arm is
missing for it. No text goes into a log or an error message.
"""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from classifier.errors import BundleError, ClassifierError
from classifier.llm_prompt import LabelPrompt, Tokens
from classifier.llm_tree import Floats, Habits, LineInProgress
from classifier.remote_settings import RemoteSettings, remote_key
from classifier.schema import Schema
from classifier.types import ArmScores, Labels

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_LOGPROBS = 20
"""What vLLM gives at most unless it is told otherwise."""
RETRIED = {408, 425, 429, 500, 502, 503, 504}
LEAST_P = 1e-12


class RemoteFailure(ClassifierError):
    """The server did not answer, or not what was asked. `is_down`: it will fail on other texts too."""

    def __init__(self, message: str, *, is_down: bool = False) -> None:
        super().__init__(message)
        self.is_down = is_down


class _TryAgain(RemoteFailure):
    """It may answer the next attempt."""


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt and the tokens whose probability is wanted after it."""

    node: int
    context: Tokens
    allowed: Tokens


class RemoteLlm:
    """Like `LlmArm`. Not thread-safe; it asks about several texts at a time by itself."""

    def __init__(self, settings: RemoteSettings, prompt: LabelPrompt, *, max_tokens: int, key: str = "") -> None:
        self.settings = settings
        self.prompt = prompt
        self.schema = prompt.schema
        self.max_tokens = max_tokens
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=settings.concurrency),
            trust_env=False,
        )
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="remote-llm")
        self._spellings = {
            spelling: token
            for token in sorted({token for trie in prompt.tries for ids in trie.branches.values() for token in ids})
            for spelling in _spell(prompt.tokenizer, token)
        }
        self._default_draft = {dimension.name: dimension.names[0] for dimension in self.schema.dimensions}
        self._habits = Habits()
        self._asks_from = 0.0

    @classmethod
    def load(
        cls, settings: RemoteSettings, tokenizer: Path, schema: Schema, prompt: str, *, max_tokens: int
    ) -> "RemoteLlm":
        """`tokenizer`: a folder with the model's tokenizer and chat template. Raises BundleError or BaseModelError."""
        from transformers import AutoTokenizer

        try:
            loaded = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
        except (OSError, ValueError) as error:
            raise BundleError(f"the tokenizer of the remote llm part cannot be loaded: {error}") from error
        arm = cls(settings, LabelPrompt.build(loaded, schema, prompt), max_tokens=max_tokens, key=remote_key())
        if trouble := arm.find_trouble():
            # Not refused: the server may come up later, and until then the other arm answers.
            log.warning("the remote llm arm: %s", trouble)
        return arm

    def find_trouble(self) -> str:
        """Why the server would not answer now; empty where it knows the model."""
        try:
            raw = self._send("GET", "/models", None, time.monotonic() + self.settings.timeout_s)
            names = [item["id"] for item in raw["data"]]
        except RemoteFailure as error:
            return str(error)
        except (KeyError, TypeError):
            return "its list of models is malformed"
        return "" if self.settings.model in names else f"it does not know the model {self.settings.model!r}"

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._http.close()

    def score(self, texts: Sequence[str], drafts: Sequence[Labels] | None = None) -> list[ArmScores | None]:
        """Same order. None for a text the server failed on."""
        tokens = [self.prompt.encode_text(text, self.max_tokens) for text in texts]
        given = drafts or [{}] * len(texts)
        return list(self._pool.map(self._score_or_none, range(len(texts)), tokens, given))

    def _score_or_none(self, position: int, text: Tokens, draft: Labels) -> ArmScores | None:
        started = time.monotonic()
        if started < self._asks_from:
            return None
        row = LineInProgress(
            position, self._default_draft | dict(draft), text + self.prompt.suffix + self.prompt.leads[0]
        )
        try:
            self._score_row(row, started + self.settings.timeout_s)
        except RemoteFailure as error:
            log.warning("the remote llm arm gave no scores: %s", error)
            if error.is_down:
                self._asks_from = time.monotonic() + self.settings.pause_s
            return None
        return ArmScores("llm", row.probabilities, (time.monotonic() - started) * 1000)

    def _score_row(self, row: LineInProgress, deadline: float) -> None:
        context = self.prompt.prefix
        while not row.is_done(self.prompt):
            row.plant_tree(self.prompt)
            context += row.pending
            questions = [
                Question(node, context + row.tree.path_to(node), allowed)
                for node, allowed in row.open_nodes(self.prompt)
            ]
            scores: dict[int, Floats] = {}
            for batch in _plan_requests(questions, self.settings):
                scores |= self._ask(batch, deadline)
            accepted = row.accept(self.prompt, partial(_take, scores), self._habits)
            context += row.tree.path_to(accepted)

    def _ask(self, questions: Sequence[Question], deadline: float) -> dict[int, Floats]:
        """Node -> log-probabilities of its allowed tokens, up to a constant that they share."""
        wanted = sorted({token for question in questions for token in question.allowed})
        body: dict[str, Any] = {
            "model": self.settings.model,
            "prompt": [list(question.context) for question in questions],
            "max_tokens": 1,
            "temperature": 0,
        }
        if self.settings.route == "vllm":
            # The token that is sampled always takes a place in the answer, so it has to be one of those wanted.
            body |= {"logprobs": len(wanted), "logprob_token_ids": wanted, "allowed_token_ids": wanted}
            body |= {"return_tokens_as_token_ids": True, "add_special_tokens": False}
        else:
            body["logprobs"] = self.settings.top_logprobs
        answer = self._send("POST", "/completions", body, deadline)
        return {
            question.node: self._read(listed, question.allowed)
            for question, listed in zip(questions, _read_choices(answer, len(questions)), strict=True)
        }

    def _read(self, listed: Mapping[str, float], allowed: Tokens) -> Floats:
        found = {token: log_p for name, log_p in listed.items() if (token := self._find_token(name)) in allowed}
        missing = len(allowed) - len(found)
        rest = max(0.0, 1 - sum(map(math.exp, listed.values())))
        # No token that is not listed can be likelier than the least likely listed one, nor all of them than the rest.
        most = min(math.exp(min(listed.values(), default=0.0)), rest)
        bound = min(most * missing, rest)
        share = bound / max(bound + sum(map(math.exp, found.values())), LEAST_P)
        if missing and (not found or share > self.settings.max_missing):
            raise RemoteFailure(f"{missing} of {len(allowed)} labels are not among the {len(listed)} tokens it listed")
        return np.array([found.get(token, math.log(max(most, LEAST_P))) for token in allowed])

    def _find_token(self, name: str) -> int | None:
        if self.settings.route == "vllm" and name.startswith("token_id:"):
            return int(name.removeprefix("token_id:")) if name[9:].isdecimal() else None
        return self._spellings.get(name)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None, deadline: float) -> Any:
        """The JSON of the answer. Raises RemoteFailure once attempts or time are used up."""
        wait_s = self.settings.backoff_s
        for attempt in range(1, self.settings.attempts + 1):
            try:
                return self._send_once(method, path, body, deadline)
            except _TryAgain as error:
                if attempt == self.settings.attempts or time.monotonic() + wait_s >= deadline:
                    raise RemoteFailure(str(error), is_down=True) from error
            time.sleep(wait_s)
            wait_s *= 2
        raise AssertionError("there is at least one attempt")

    def _send_once(self, method: str, path: str, body: Mapping[str, Any] | None, deadline: float) -> Any:
        url = self.settings.url.rstrip("/") + path
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise RemoteFailure(f"no answer within {self.settings.timeout_s:g} s", is_down=True)
        try:
            with self._http.stream(method, url, json=body, timeout=left_s) as response:
                content = b"".join(_read_within(response, deadline))
        except httpx.TimeoutException as error:
            raise RemoteFailure(f"no answer within {self.settings.timeout_s:g} s", is_down=True) from error
        except httpx.HTTPError as error:
            raise _TryAgain(f"the connection failed ({type(error).__name__})") from error
        if response.status_code in RETRIED:
            raise _TryAgain(f"HTTP {response.status_code}")
        if response.status_code != 200:
            # 401, 404 and the like: no other text would fare better.
            raise RemoteFailure(f"HTTP {response.status_code}", is_down=True)
        try:
            return json.loads(content)
        except ValueError as error:
            raise RemoteFailure("its answer is not JSON") from error


def _read_within(response: httpx.Response, deadline: float) -> Iterator[bytes]:
    """httpx limits the wait for each piece alone; a server that trickles would hold the text for ever."""
    size = 0
    for chunk in response.iter_bytes():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise RemoteFailure("its answer is too large")
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the deadline has passed")
        yield chunk


def _take(scores: Mapping[int, Floats], node: int, allowed: Tokens) -> Floats:
    return scores[node]


def _plan_requests(questions: Sequence[Question], settings: RemoteSettings) -> list[list[Question]]:
    """All in one request, unless their tokens together are more than vLLM lists."""
    wanted = {token for question in questions for token in question.allowed}
    if settings.route == "openai" or len(wanted) <= MAX_LOGPROBS:
        return [list(questions)]
    return [[question] for question in questions]


def _read_choices(answer: Any, count: int) -> list[dict[str, float]]:
    """Token -> log-probability of the first token of each choice, in the order of the prompts."""
    try:
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        if [choice["index"] for choice in choices] != list(range(count)):
            raise RemoteFailure(f"it answered {len(choices)} of {count} prompts")
        listed = []
        for choice in choices:
            logprobs = choice["logprobs"]
            sampled = {logprobs["tokens"][0]: logprobs["token_logprobs"][0]}
            listed.append({str(name): float(p) for name, p in (sampled | logprobs["top_logprobs"][0]).items()})
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RemoteFailure("its answer holds no log-probabilities") from error
    if any(not math.isfinite(log_p) or log_p > 0.01 for row in listed for log_p in row.values()):
        raise RemoteFailure("a log-probability is not a number below 0")
    return listed


def _spell(tokenizer: Any, token: int) -> set[str]:
    """How servers write a token in their answers."""
    piece = str(tokenizer.convert_ids_to_tokens(token))
    return {f"token_id:{token}", piece, piece.replace("▁", " "), str(tokenizer.decode([token]))}
