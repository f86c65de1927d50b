"""The demo's whole path, headless: `python -m tests.smoke`, or `make smoke`.

Starts the stack on free ports in a temporary folder, logs in, classifies the five statements over HTTP, submits a
correction, finds it in the export, launches a short bert run on it, asks for decisions without pause while the new
release is swapped in, and stops. Exit code 0 when all of it is right; the last line is one JSON object of figures.
"""

import itertools
import json
import os
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings

from classifier.schema import GOLDEN_STATEMENTS
from tests.inference import wait_until
from tests.stack import StackProcess, log_in

# So small a step that every gate finds the same model: the path is tried here, not the learning.
RUN_OPTIONS = {"epochs": 1, "learning_rate": 1e-6, "max_tokens": 64, "batch_size": 32}
SNAPSHOT_OPTIONS = {"replay_rows": 400}
ENDED = ("succeeded", "failed", "cancelled")
RUN_TIMEOUT_S = 1_500


class SmokeFailed(AssertionError):
    """A step of the path came out wrong."""


def require(condition: bool, what: str) -> None:
    if not condition:
        raise SmokeFailed(what)


class Seconds:
    """What took how long, printed as it happens."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.taken[name] = round(time.perf_counter() - started, 2)
        print(f"{self.taken[name]:8.2f} s  {name}", flush=True)


class Pressure:
    """Clients that ask without pause; every answer must come, and come from one release."""

    def __init__(self, clients: list[httpx.Client]) -> None:
        self.done = threading.Event()
        self.failures: list[str] = []
        self.mixed = 0
        self.answers = 0
        self.releases: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(client,)) for client in clients]

    def __enter__(self) -> "Pressure":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, client: httpx.Client) -> None:
        texts = [text for text, _, _ in GOLDEN_STATEMENTS]
        for turn in itertools.count():
            if self.done.is_set():
                return
            # Now and then a fresh text beside the known ones: answers must not come from the cache alone.
            body = {"texts": [*texts, f"note {uuid.uuid4().hex[:8]}"] if turn % 10 == 0 else texts}
            try:
                answer = client.post("/api/v1/classify", json=body)
                releases = {one["release"] for one in answer.json()["decisions"]} if answer.is_success else set()
            except httpx.HTTPError as error:
                releases, answer = set(), None
                self.failures.append(type(error).__name__)
            with self._lock:
                self.answers += 1
                if answer is not None and not answer.is_success:
                    self.failures.append(f"{answer.status_code}: {answer.text[:200]}")
                self.mixed += len(releases) > 1
                for release in releases - set(self.releases):
                    self.releases.append(release)


def check_statements(ada: httpx.Client) -> str:
    """The five statements come out right. Returns the release that said so."""
    answer = ada.post("/api/v1/classify", json={"texts": [text for text, _, _ in GOLDEN_STATEMENTS]})
    require(answer.status_code == 200, f"classify answered {answer.status_code}: {answer.text[:300]}")
    decisions = answer.json()["decisions"]
    for place, ((_, emotion, risk), decision) in enumerate(zip(GOLDEN_STATEMENTS, decisions, strict=True), 1):
        got = (decision["labels"]["emotion"], decision["labels"]["risk"])
        require(got == (emotion, risk), f"statement {place} came out as {got}, must be {(emotion, risk)}")
    return str(decisions[0]["release"])


def submit_correction(ana: httpx.Client) -> dict[str, Any]:
    """Correct the sentiment of the first text of the queue."""

    def claim() -> list[dict[str, Any]]:
        return list(ana.post("/api/v1/annotations/claim", json={"count": 1}).json())

    claimed: list[dict[str, Any]] = []

    def has_claimed() -> bool:
        claimed.extend(claim())
        return bool(claimed)

    wait_until(has_claimed, timeout_s=120)
    document = claimed[0]
    labels = dict(document["prediction"]["labels"])
    labels["sentiment"] = "negative" if labels["sentiment"] != "negative" else "neutral"
    answer = ana.post(
        "/api/v1/annotations",
        json={
            "document": document["id"],
            "prediction": document["prediction"]["id"],
            "verdict": "corrected",
            "labels": labels,
            "comment": "smoke",
            "idempotency_key": str(uuid.uuid4()),
        },
    )
    require(answer.status_code == 201, f"the correction was answered {answer.status_code}: {answer.text[:300]}")
    return {"text": document["text"], "labels": labels}


def find_in_export(ada: httpx.Client, correction: dict[str, Any]) -> None:
    rows = ada.get("/api/v1/feedback/export", params={"format": "feedback"}).json()
    (row,) = [row for row in rows if row["text"] == correction["text"]]
    wanted = ", ".join(f"{name}: {value}" for name, value in correction["labels"].items())
    require(row["correct_labels"] == wanted, "the export does not hold the corrected labels")
    require(row["feedback"] == "smoke", "the export does not hold the comment")


def launch(ada: httpx.Client) -> dict[str, Any]:
    """A short run, followed until it is trained; what comes next is judged, published and swapped in."""
    launched = ada.post("/api/v1/runs", json={"kind": "bert", "options": RUN_OPTIONS, "snapshot": SNAPSHOT_OPTIONS})
    require(launched.status_code == 201, f"the launch was answered {launched.status_code}: {launched.text[:300]}")
    run: dict[str, Any] = launched.json()
    wait_until(lambda: refresh(ada, run)["state"] in ENDED or run["stage"].startswith("evaluate"), RUN_TIMEOUT_S)
    return run


def refresh(ada: httpx.Client, run: dict[str, Any]) -> dict[str, Any]:
    answer = ada.get(f"/api/v1/runs/{run['id']}")
    if answer.is_success:
        run.update(answer.json())
    return run


def await_end(ada: httpx.Client, run: dict[str, Any]) -> dict[str, Any]:
    wait_until(lambda: refresh(ada, run)["state"] in ENDED, RUN_TIMEOUT_S)
    require(run["state"] == "succeeded", f"the run {run['state']}: {run.get('error')}\n{run.get('log_tail')}")
    return run


def serves(ada: httpx.Client, release: str) -> Callable[[], bool]:
    def is_serving() -> bool:
        answer = ada.post("/api/v1/classify", json={"text": "I went to the store"})
        return answer.is_success and answer.json()["decisions"][0]["release"] == release

    return is_serving


def walk(stack: StackProcess, seconds: Seconds) -> dict[str, Any]:
    """The path itself. Returns figures."""
    passwords = stack.passwords()
    with seconds.step("log in"):
        ana, ada = (log_in(stack.url, name, passwords[name]) for name in ("ana", "ada"))
    with seconds.step("classify the five statements"):
        first = check_statements(ada)
    with seconds.step("submit a correction"):
        correction = submit_correction(ana)
    with seconds.step("find it in the export"):
        find_in_export(ada, correction)
    with seconds.step("train"):
        run = launch(ada)
    with Pressure([log_in(stack.url, "ada", passwords["ada"])]) as pressure:
        with seconds.step("gate and publish"):
            await_end(ada, run)
        releases = ada.get("/api/v1/releases").json()["results"]
        newest = releases[0]["name"]
        require(newest != first, f"no new release: {json.dumps(run.get('report') or run)[:1500]}")
        with seconds.step("the new release serves"):
            wait_until(serves(ada, newest), timeout_s=120)
    require(pressure.failures == [], f"{len(pressure.failures)} requests failed: {pressure.failures[:3]}")
    require(pressure.mixed == 0, f"{pressure.mixed} answers mixed releases")
    require(pressure.releases[-1] == newest, f"the clients saw {pressure.releases}, not {newest}")
    with seconds.step("classify the five statements again"):
        require(check_statements(ada) == newest, "the statements were not answered by the new release")
    return {"requests": pressure.answers, "failed": len(pressure.failures), "mixed": pressure.mixed}


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="heed smoke "))
    stack = StackProcess(folder / "var", Path(settings.BASE_MODELS_DIR))
    seconds = Seconds()
    try:
        with seconds.step("start"):
            stack.start(timeout_s=600, OMP_NUM_THREADS="1")
        figures = walk(stack, seconds)
        with seconds.step("stop"):
            code = stack.interrupt()
        require(code == 0, f"the stack stopped with exit code {code}")
        require(stack.left_over() == [], f"left over after the stop: {stack.left_over()}")
    except BaseException:
        print("".join(stack.lines[-120:]), file=sys.stderr)
        raise
    finally:
        stack.end()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"smoke": "passed", **figures, "seconds": seconds.taken}))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    sys.exit(main())
