"""A server with the OpenAI-compatible completions API around a toy model. It checks requests, and can misbehave."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

MODEL = "toy-llm"
KEY = "a-key-for-tests"

Answer = dict[str, Any]
Mischief = Callable[["CompletionsStub", Answer], Answer | int | bytes]
"""Gets the right answer; returns another, a status code, or raw bytes."""


class CompletionsStub:
    """Answers as vLLM does (`logprob_token_ids`), or like a plain server (the likeliest tokens as text)."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.mischief: list[Mischief] = []
        """One for each of the next requests; then it behaves."""
        self.always: Mischief | None = None
        self.in_flight = self.most_in_flight = 0
        self.released = threading.Event()
        self.released.set()
        self._lock = threading.Lock()
        self._server = _QuietServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @contextmanager
    def running(self) -> Iterator["CompletionsStub"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def answer(self, request: dict[str, Any], headers: dict[str, str]) -> Answer | int | bytes:
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            mischief = self.mischief.pop(0) if self.mischief else self.always
        try:
            self.released.wait(30)
            right = self._complete(request)
            return mischief(self, right) if mischief else right
        finally:
            with self._lock:
                self.in_flight -= 1

    def _complete(self, request: dict[str, Any]) -> Answer:
        assert request["model"] == MODEL
        assert request["max_tokens"] == 1
        assert request["temperature"] == 0
        choices = [self._choose(index, prompt, request) for index, prompt in enumerate(request["prompt"])]
        return {"object": "text_completion", "model": MODEL, "choices": choices}

    def _decode(self, token: int) -> str:
        return str(self.tokenizer.decode([token]))

    def _choose(self, index: int, prompt: list[int], request: dict[str, Any]) -> Answer:
        assert all(type(token) is int for token in prompt)
        with torch.inference_mode(), self._lock:
            log_p = self.model(torch.tensor([prompt])).logits[0, -1].double().log_softmax(-1)
        spell: Callable[[int], str]
        if ids := request.get("logprob_token_ids"):
            assert request["add_special_tokens"] is False
            assert request["return_tokens_as_token_ids"] is True
            sampled = max(request["allowed_token_ids"], key=lambda token: float(log_p[token]))
            # As vLLM has it: the sampled token takes the first place and may push the last of those asked for out.
            listed = [sampled, *ids][: max(request["logprobs"], len(ids)) + (sampled in ids)]
            spell = "token_id:{}".format
        else:
            listed = log_p.topk(request["logprobs"]).indices.tolist()
            sampled, spell = listed[0], self._decode
        return {
            "index": index,
            "text": "",
            "finish_reason": "length",
            "logprobs": {
                "tokens": [spell(sampled)],
                "token_logprobs": [float(log_p[sampled])],
                "top_logprobs": [{spell(token): float(log_p[token]) for token in listed}],
            },
        }


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that has hung up, or a failed assertion: the client sees it as a broken connection."""


def _handler(stub: CompletionsStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            assert self.path == "/v1/models"
            self._reply({"object": "list", "data": [{"id": MODEL}]})

        def do_POST(self) -> None:
            assert self.path == "/v1/completions"
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._reply(stub.answer(request, dict(self.headers)))

        def _reply(self, answer: Answer | int | bytes) -> None:
            status = answer if isinstance(answer, int) else 200
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """A test's output is its own."""

    return Handler


def status(code: int) -> Mischief:
    return lambda stub, answer: code


def body(content: bytes) -> Mischief:
    return lambda stub, answer: content


def altered(change: Callable[[dict[str, Any]], None]) -> Mischief:
    """`change` is applied to the first choice."""

    def alter(stub: CompletionsStub, answer: Answer) -> Answer:
        change(answer["choices"][0])
        return answer

    return alter


def together(barrier: threading.Barrier) -> Mischief:
    """Answers only once so many requests are there."""

    def wait(stub: CompletionsStub, answer: Answer) -> Answer:
        barrier.wait(30)
        return answer

    return wait
