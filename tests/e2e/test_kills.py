"""Promise 1 on the real stack: what was given is kept once, whichever process is killed in the middle of it."""

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.inference import wait_until
from tests.stack import StackProcess, log_in, start_toy_stack

pytestmark = [pytest.mark.e2e]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackProcess]:
    stack = start_toy_stack(tmp_path_factory.mktemp("kills"))
    yield stack
    assert stack.interrupt() == 0
    assert stack.left_over() == []


@pytest.fixture(scope="module")
def ada(stack: StackProcess) -> httpx.Client:
    return log_in(stack.url, "ada", stack.passwords()["ada"])


def kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def until_answered(client: httpx.Client, path: str, body: dict[str, Any]) -> int:
    """Post until an answer comes, as the page does. Returns how many attempts broke off."""
    broken, pause = 0, threading.Event()
    while broken < 600:
        try:
            answer = client.post(path, json=body)
            assert answer.status_code == 201, answer.text
            return broken
        except httpx.TransportError:
            broken += 1
            pause.wait(0.1)
    raise TimeoutError(f"no answer from {path}")


def test_the_web_killed_in_mid_submit_loses_and_doubles_no_answer(stack: StackProcess, ada: httpx.Client) -> None:
    def claimed() -> list[dict[str, Any]]:
        return list(ada.post("/api/v1/annotations/claim", json={"count": 20}).json())

    documents: list[dict[str, Any]] = []

    def has_twenty() -> bool:
        documents[:] = claimed()
        return len(documents) == 20

    wait_until(has_twenty)
    broken = 0
    for place, document in enumerate(documents):
        body = {"document": document["id"], "verdict": "correct", "idempotency_key": str(uuid.uuid4())}
        body["prediction"] = document["prediction"]["id"]
        outcome: list[int] = []
        thread = threading.Thread(
            target=lambda body=body, outcome=outcome: outcome.append(until_answered(ada, "/api/v1/annotations", body))
        )
        thread.start()
        if place % 5 == 0:
            kill_all(stack.commands("web"))
        thread.join(90)
        assert outcome, f"answer {place} never came"
        broken += outcome[0]
    assert broken > 0, "no kill hit: the test proves nothing"
    wait_until(lambda: ada.get("/api/v1/schema").is_success)
    records = ada.get("/api/v1/feedback/export", params={"format": "jsonl"}).text.splitlines()
    assert len(records) == 20


def test_the_inference_server_killed_while_it_scores_leaves_no_text_unscored(
    stack: StackProcess, ada: httpx.Client
) -> None:
    texts = [{"text": f"Note {place}: {'the kettle is on and the rain goes on ' * 20}"} for place in range(400)]
    answer = ada.post("/api/v1/documents", json={"documents": texts})
    assert answer.status_code == 201
    ids = {one["id"] for one in answer.json()["documents"]}
    kill_all(stack.commands("inference"))

    def waiting() -> set[int]:
        page = ada.get("/api/v1/documents", params={"state": "unscored", "page_size": 500}).json()
        return {one["id"] for one in page["results"]} & ids

    assert waiting(), "all were scored before the kill: the test proves nothing"
    refused = ada.post("/api/v1/classify", json={"text": "while it is down"})
    assert refused.status_code in (200, 503)
    wait_until(lambda: not waiting(), timeout_s=120)
    scored = ada.get("/api/v1/documents", params={"state": "scored", "page_size": 500}).json()["results"]
    assert {one["id"] for one in scored if one["prediction"]} >= ids


def test_a_training_worker_killed_in_mid_run_is_resumed_to_one_release(stack: StackProcess, ada: httpx.Client) -> None:
    before = len(ada.get("/api/v1/releases").json()["results"])
    options = {"epochs": 4, "checkpoint_steps": 2, "learning_rate": 1e-7, "test_rows": 200}
    launched = ada.post("/api/v1/runs", json={"kind": "bert", "options": options, "snapshot": {"replay_rows": 400}})
    assert launched.status_code == 201, launched.text
    path = f"/api/v1/runs/{launched.json()['id']}"

    def run() -> dict[str, Any]:
        return dict(ada.get(path).json())

    wait_until(lambda: run()["progress"] > 0.02, timeout_s=180)
    job = [one for one in stack.commands("trainer") if "training.jobs" in " ".join(one.cmdline())]
    assert job, "no job was running: the test proves nothing"
    kill_all(stack.commands("trainer"))
    _, alive = psutil.wait_procs(job, timeout=30)
    assert alive == [], "the job outlived its supervisor"
    wait_until(lambda: run()["state"] in ("succeeded", "failed"), timeout_s=1200)
    ended = run()
    assert ended["state"] == "succeeded", f"{ended['error']}\n{ended['log_tail']}"
    assert ended["attempt"] == 2
    assert len(ada.get("/api/v1/releases").json()["results"]) == before + 1
