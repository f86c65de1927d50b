"""The inference server: `python -m classifier.server`.

Settings: INFERENCE_HOST (127.0.0.1), INFERENCE_PORT (8002), INFERENCE_TOKEN (or the file VAR_DIR/inference_token),
INFERENCE_FREE_FIRST (0: load N+1 beside N), INFERENCE_POLL_S (5: how often the release pointer is read),
INFERENCE_THREADS (of torch and ONNX Runtime, default all cores), HEED_BERT_RUNTIME (`torch` or `onnx`: overrules what
the release says of its BERT part), HEED_DERIVED_DIR (VAR_DIR/derived: where its ONNX file is kept).
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from classifier import metrics
from classifier.client import ServingState
from classifier.engine import Engine, EngineOptions, NotReady, Overloaded
from classifier.errors import BundleError, ClassifierError, ReleaseConflict

logger = logging.getLogger(__name__)

MAX_TEXTS = 1_000
MAX_BODY_BYTES = 64 * 1024 * 1024

Pointer = Callable[[], tuple[str, Path]]


def refuse(status: int, error: str, detail: str, **headers: str) -> JSONResponse:
    return JSONResponse({"error": error, "detail": detail}, status_code=status, headers=headers)


class Server:
    """The HTTP side of an engine."""

    def __init__(self, engine: Engine, pointer: Pointer, *, token: str, poll_s: float = 5.0) -> None:
        self.engine = engine
        self.pointer = pointer
        self.token = token
        self.poll_s = poll_s
        self.trouble = ""
        """Why the release that the pointer names does not serve; empty when it does."""

    def app(self) -> Starlette:
        return Starlette(
            lifespan=self.lifespan,
            routes=[
                Route("/health", self.health),
                Route("/metrics", self.show_metrics),
                Route("/v1/decide", self.guard(self.decide), methods=["POST"]),
                Route("/v1/release", self.guard(self.release), methods=["GET", "POST"]),
            ],
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.engine.start()
        follower = asyncio.create_task(self.follow_pointer(), name="follow-pointer")
        follower.add_done_callback(_end_if_failed)
        yield
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
        await self.engine.stop()

    async def follow_pointer(self) -> None:
        """Serve what the pointer names, now and whenever it changes: a missed swap message heals itself."""
        refused: tuple[str, Path] | None = None
        while True:
            try:
                wanted = self.pointer()
            except BundleError as error:
                self.trouble = str(error)
            else:
                serving = self.engine.serving
                if wanted != refused and (serving is None or serving.release != wanted[0]):
                    refused = await self.serve(*wanted)
            await asyncio.sleep(self.poll_s)

    async def serve(self, release: str, bundle: Path) -> tuple[str, Path] | None:
        """None when it serves; else the pair, so that a bad bundle is not tried again and again."""
        try:
            await self.engine.swap(release=release, bundle=bundle, expected=None)
        except ClassifierError as error:
            self.trouble = f"{release}: {error}"
            logger.error("release %s does not serve: %s", release, error)
            return release, bundle
        self.trouble = ""
        return None

    def guard(self, view: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                return refuse(401, "unauthorized", "send the inference token as a Bearer token")
            return await view(request)

        return guarded

    async def decide(self, request: Request) -> Response:
        started = time.perf_counter()
        texts = await _read_texts(request)
        if isinstance(texts, str):
            metrics.REQUESTS.labels("bad_request").inc()
            return refuse(400, "bad_request", texts)
        try:
            release, decisions = await self.engine.decide(texts)
        except NotReady:
            metrics.REQUESTS.labels("not_ready").inc()
            return refuse(503, "not_ready", self.trouble or "the bundle is being loaded", **{"Retry-After": "2"})
        except Overloaded as error:
            metrics.REQUESTS.labels("overloaded").inc()
            return refuse(503, "overloaded", str(error), **{"Retry-After": "1"})
        except Exception:  # noqa: BLE001 - the edge of the process: the engine has logged it, without the text
            metrics.REQUESTS.labels("failed").inc()
            return refuse(500, "failed", "the classifier failed on this request")
        metrics.REQUESTS.labels("ok").inc()
        metrics.TEXTS.inc(len(texts))
        for decision in decisions:
            if decision.unscored:
                metrics.UNSCORED.labels(decision.unscored.partition(":")[0]).inc()
        metrics.LATENCY.observe(time.perf_counter() - started)
        return JSONResponse({"release": release, "decisions": [decision.as_dict() for decision in decisions]})

    async def release(self, request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse(asdict(self.state()))
        wanted = await _read_object(request)
        if wanted is None or not all(isinstance(wanted.get(key), str) for key in ("release", "bundle", "expected")):
            return refuse(400, "bad_request", "expected {release, bundle, expected}, all strings")
        try:
            await self.engine.swap(
                release=wanted["release"], bundle=Path(wanted["bundle"]), expected=wanted["expected"]
            )
        except ReleaseConflict as error:
            return refuse(409, "release_conflict", str(error))
        except ClassifierError as error:
            return refuse(422, "bundle_refused", str(error))
        self.trouble = ""
        return JSONResponse(asdict(self.state()))

    def state(self) -> ServingState:
        serving = self.engine.serving
        state = "swapping" if self.engine.is_swapping else "serving" if serving else "loading"
        if serving is None:
            return ServingState("", "", "", state)
        return ServingState(serving.release, str(serving.bundle), serving.manifest_hash, state)

    async def health(self, request: Request) -> Response:
        state = self.state()
        body = {"status": "ok" if state.release else "loading", "release": state.release, "trouble": self.trouble}
        return JSONResponse(body, status_code=200 if state.release else 503)

    async def show_metrics(self, request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _end_if_failed(follower: "asyncio.Task[None]") -> None:
    """A server that no longer follows the pointer would serve an old release for ever: end, to be started again."""
    if not follower.cancelled() and (error := follower.exception()):
        logger.critical("the release pointer is no longer followed: %r", error)
        signal.raise_signal(signal.SIGTERM)


async def _read_object(request: Request) -> dict[str, Any] | None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    try:
        value = await asyncio.to_thread(_parse_json, bytes(body)) if len(body) > 100_000 else _parse_json(bytes(body))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _parse_json(body: bytes) -> Any:
    return json.loads(body)


async def _read_texts(request: Request) -> list[str] | str:
    """The texts, or a sentence that says what is wrong with the body."""
    body = await _read_object(request)
    texts = None if body is None else body.get("texts")
    if not isinstance(texts, list):
        return f"expected a JSON object with a list 'texts', of at most {MAX_BODY_BYTES // 2**20} MiB"
    if len(texts) > MAX_TEXTS:
        return f"{len(texts)} texts in one request, at most {MAX_TEXTS}"
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            return f"texts[{place}] is not a string"
    return texts


def read_token(var_dir: Path) -> str:
    """INFERENCE_TOKEN, else VAR_DIR/inference_token. The server does not start without one."""
    token = os.environ.get("INFERENCE_TOKEN", "")
    path = var_dir / "inference_token"
    if not token and path.exists():
        token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise SystemExit("INFERENCE_TOKEN is not set and there is no inference_token file in VAR_DIR: set one of them")
    return token


def build_server() -> Server:
    """The server as the environment describes it."""
    import torch

    from classifier import api
    from classifier.base_models import var_dir

    torch.set_num_threads(int(os.environ.get("INFERENCE_THREADS", str(os.cpu_count() or 1))))
    options = EngineOptions(free_first=os.environ.get("INFERENCE_FREE_FIRST", "0") == "1")
    engine = Engine(
        load=lambda bundle, release: api.load(bundle, release=release),
        check=api.check_golden_or_raise,
        options=options,
    )
    poll_s = float(os.environ.get("INFERENCE_POLL_S", "5"))
    return Server(engine, api.serving_bundle, token=read_token(var_dir()), poll_s=poll_s)


def main() -> None:
    import uvicorn

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    uvicorn.run(
        build_server().app(),
        host=os.environ.get("INFERENCE_HOST", "127.0.0.1"),
        port=int(os.environ.get("INFERENCE_PORT", "8002")),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=20,
    )


if __name__ == "__main__":
    main()
