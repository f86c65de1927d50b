"""The serving engine: one immutable bundle behind a pointer, micro-batches, compare-and-swap.

Every batch takes the pointer once, at its start, and answers whole requests: no answer can mix two releases. A swap
loads N+1 beside N, verifies hashes, runs the golden check, warms up, moves the pointer, and lets batches on N finish.
"""

import asyncio
import functools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from classifier import metrics
from classifier.bundle import manifest_sha256
from classifier.errors import ClassifierError, ReleaseConflict
from classifier.types import Decision

logger = logging.getLogger(__name__)

T = TypeVar("T")

WARM_UP_WORDS = (3, 12, 40, 120, 240)
"""One text for each length bucket, so that the first real request of any length is already fast."""


class Decider(Protocol):
    """The part of `classifier.api.Classifier` that serving needs."""

    release: str

    def decide(self, texts: Sequence[str]) -> list[Decision]: ...
    def close(self) -> None: ...


class Overloaded(Exception):
    """More texts wait than the engine will hold; the caller should come back later."""


class NotReady(Exception):
    """No bundle serves yet."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """`window_s`: how long a batch waits for company. Budgets bound the work of one batch and of the queue."""

    window_s: float = 0.003
    batch_characters: int = 20_000
    batch_texts: int = 64
    waiting_texts: int = 5_000
    cache_texts: int = 4_096
    free_first: bool = False
    """Free N before N+1 is loaded: for machines that cannot hold two bundles. Requests wait meanwhile."""


class Serving:
    """A loaded bundle with its answers so far and the number of batches that use it now."""

    def __init__(self, decider: Decider, bundle: Path, cache_texts: int) -> None:
        self.decider = decider
        self.bundle = bundle
        self.manifest_hash = manifest_sha256(bundle)
        self._cache: OrderedDict[str, Decision] = OrderedDict()
        self._cache_texts = cache_texts
        self._users = 0
        self._idle = threading.Condition()

    @property
    def release(self) -> str:
        return self.decider.release

    def __enter__(self) -> "Serving":
        with self._idle:
            self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._idle:
            self._users -= 1
            self._idle.notify_all()

    def wait_until_idle(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._users == 0)

    def decide(self, texts: Sequence[str]) -> list[Decision]:
        """Each distinct text is judged once; a copy of an earlier text costs nothing."""
        unknown = [text for text in dict.fromkeys(texts) if text not in self._cache]
        fresh = dict(zip(unknown, self.decider.decide(unknown), strict=True)) if unknown else {}
        metrics.CACHE_HITS.inc(len(texts) - len(unknown))
        answers = []
        for text in texts:
            if text in fresh:
                answers.append(fresh[text])
            else:
                self._cache.move_to_end(text)
                answers.append(self._cache[text])
        self._cache.update((text, item) for text, item in fresh.items() if item.unscored is None)
        while len(self._cache) > self._cache_texts:
            self._cache.popitem(last=False)
        return answers


@dataclass(slots=True)
class Waiting:
    """A request in the queue."""

    texts: list[str]
    answer: "asyncio.Future[tuple[str, list[Decision]]]"
    characters: int = field(init=False)

    def __post_init__(self) -> None:
        self.characters = sum(map(len, self.texts))


Loader = Callable[[Path, str], Decider]


class Engine:
    """Runs inside one asyncio loop; all model work happens in its own threads."""

    def __init__(self, load: Loader, check: Callable[[Any], None], options: EngineOptions | None = None) -> None:
        self._load = load
        self._check = check
        self.options = options or EngineOptions()
        self._current: Serving | None = None
        self._previous: Serving | None = None
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()
        self._waiting_texts = 0
        self._swap_lock = asyncio.Lock()
        self._has_bundle = asyncio.Event()
        self._model_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._load_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="load")
        self._batcher: asyncio.Task[None] | None = None
        self.is_swapping = False

    def start(self) -> None:
        self._batcher = asyncio.create_task(self._run_batches(), name="batcher")

    async def stop(self) -> None:
        if self._batcher is not None:
            self._batcher.cancel()
            await asyncio.gather(self._batcher, return_exceptions=True)
        self._model_thread.shutdown(wait=True)
        self._load_thread.shutdown(wait=True)

    @property
    def serving(self) -> Serving | None:
        return self._current

    async def decide(self, texts: list[str]) -> tuple[str, list[Decision]]:
        """The release and its decisions. Raises NotReady or Overloaded; then nothing was decided."""
        if self._current is None and not (self.is_swapping and self.options.free_first):
            raise NotReady("no bundle serves yet")
        if self._waiting_texts + len(texts) > self.options.waiting_texts:
            raise Overloaded(f"{self._waiting_texts} texts wait already")
        waiting = Waiting(texts, asyncio.get_running_loop().create_future())
        self._waiting_texts += len(texts)
        self._queue.put_nowait(waiting)
        try:
            return await waiting.answer
        finally:
            self._waiting_texts -= len(texts)

    async def swap(self, *, release: str, bundle: Path, expected: str | None) -> Serving:
        """Serve `bundle` as `release`. `expected=None` serves it whatever serves now (start-up, convergence).

        Raises ReleaseConflict, BundleError, BaseModelError or GoldenCheckFailed; the old bundle then goes on serving.
        """
        async with self._swap_lock:
            serves = self._current.release if self._current else ""
            # Asked twice for the same thing, or the pointer was followed first: it is so already.
            if self._current is not None and serves == release:
                return self._current
            if expected is not None and expected != serves:
                raise ReleaseConflict(f"release {serves or 'none'} serves, not {expected}")
            self.is_swapping = True
            try:
                return await self._swap_to(release, bundle)
            finally:
                self.is_swapping = False

    async def _swap_to(self, release: str, bundle: Path) -> Serving:
        started = time.perf_counter()
        if self.options.free_first and self._current is not None:
            fresh = await self._replace_in_place(self._current, release, bundle)
        else:
            fresh = await self._in(self._load_thread, functools.partial(self._restore_or_prepare, release, bundle))
            spare, self._previous = self._previous, self._current
            # The bundle before last goes once no batch uses it; N stays loaded for an instant roll back.
            if spare is not None and spare.decider is not fresh.decider:
                self._load_thread.submit(_retire, spare)
        self._serve(fresh)
        metrics.record_swap(release, time.perf_counter() - started)
        logger.info("release %s serves after %.1f s", release, time.perf_counter() - started)
        return fresh

    async def _replace_in_place(self, old: Serving, release: str, bundle: Path) -> Serving:
        """Free N, then load N+1; requests wait. A bundle that is refused brings N back before the error is raised."""
        self._current = None
        self._has_bundle.clear()
        await self._in(self._load_thread, functools.partial(_retire, old))
        try:
            return await self._in(self._load_thread, functools.partial(self._prepare, release, bundle))
        except ClassifierError:
            self._serve(await self._in(self._load_thread, functools.partial(self._prepare, old.release, old.bundle)))
            raise

    def _serve(self, serving: Serving) -> None:
        self._current = serving
        self._has_bundle.set()

    def _restore_or_prepare(self, release: str, bundle: Path) -> Serving:
        """The bundle that served before is still loaded: it only takes the new release's name."""
        kept = self._previous
        if kept is None or kept.manifest_hash != manifest_sha256(bundle):
            return self._prepare(release, bundle)
        kept.wait_until_idle()
        kept.decider.release = release
        # A fresh wrapper: the answers cached in the old one carry the old release.
        return Serving(kept.decider, bundle, self.options.cache_texts)

    def _prepare(self, release: str, bundle: Path) -> Serving:
        decider = self._load(bundle, release)
        try:
            self._check(decider)
            decider.decide([" ".join(["word"] * count) for count in WARM_UP_WORDS])
        except BaseException:
            decider.close()
            raise
        return Serving(decider, bundle, self.options.cache_texts)

    async def _run_batches(self) -> None:
        while True:
            batch = await self._collect()
            await self._has_bundle.wait()
            serving = self._current
            if serving is None:
                continue
            with serving:
                await self._answer(serving, [item for item in batch if not item.answer.done()])

    async def _answer(self, serving: Serving, batch: list[Waiting]) -> None:
        texts = [text for item in batch for text in item.texts]
        if not texts:
            for item in batch:
                item.answer.set_result((serving.release, []))
            return
        metrics.BATCH_TEXTS.observe(len(texts))
        try:
            decisions = await self._in(self._model_thread, functools.partial(serving.decide, texts))
        except Exception as error:  # noqa: BLE001 - the edge of the batch: each waiting request gets the failure
            logger.error("a batch of %d texts failed: %s", len(texts), type(error).__name__)
            for item in batch:
                if not item.answer.done():
                    item.answer.set_exception(error)
            return
        at = 0
        for item in batch:
            if not item.answer.done():
                item.answer.set_result((serving.release, decisions[at : at + len(item.texts)]))
            at += len(item.texts)

    async def _collect(self) -> list[Waiting]:
        """The next request, and those that arrive within the window, up to the budget."""
        batch = [await self._queue.get()]
        characters, texts = batch[0].characters, len(batch[0].texts)
        closes = asyncio.get_running_loop().time() + self.options.window_s
        while characters < self.options.batch_characters and texts < self.options.batch_texts:
            left = closes - asyncio.get_running_loop().time()
            try:
                item = await asyncio.wait_for(self._queue.get(), max(left, 0)) if left > 0 else self._queue.get_nowait()
            except (TimeoutError, asyncio.QueueEmpty):
                break
            batch.append(item)
            characters, texts = characters + item.characters, texts + len(item.texts)
        return batch

    async def _in(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


def _retire(serving: Serving) -> None:
    serving.wait_until_idle()
    serving.decider.close()
