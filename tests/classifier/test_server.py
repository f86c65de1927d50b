"""The inference server through its HTTP door, in a process of its own."""

import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from classifier.client import InferenceUnavailable, SwapRefused
from classifier.errors import ReleaseConflict
from tests.inference import TOKEN, InferenceProcess, wait_until

TEXTS = [f"text number {number} of the load" for number in range(40)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    server = InferenceProcess(tmp_path_factory.mktemp("inference"))
    server.point_to("r0001", server.make_bundle("one", seed=1))
    server.make_bundle("two", seed=2)
    server.make_bundle("three", seed=3)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(shared: InferenceProcess) -> InferenceProcess:
    """Serving r0001, whatever the test before did."""
    shared.point_to("r0001", shared.bundles / "one")
    wait_until(lambda: shared.serves() == "r0001")
    return shared


def swap(server: InferenceProcess, release: str, bundle: str, expected: str) -> None:
    """Publish as the registry does: the pointer first, then the request."""
    server.point_to(release, server.bundles / bundle)
    server.client().swap(release=release, bundle=str(server.bundles / bundle), expected=expected)


def test_answers_in_the_order_of_the_texts_with_the_release(server: InferenceProcess) -> None:
    decisions = server.client().decide(["I want to kill myself", "I went to the store", ""])
    assert [decision.labels.get("risk") for decision in decisions] == ["high", "none", None]
    assert decisions[2].unscored == "empty"
    assert {decision.release for decision in decisions} == {"r0001"}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "expected a JSON object"),
        (b'{"texts": "one"}', "expected a JSON object"),
        (b'{"texts": ["a", 7]}', "texts[1] is not a string"),
        (json.dumps({"texts": ["a"] * 1001}).encode(), "1001 texts in one request"),
    ],
)
def test_a_bad_request_says_what_is_wrong(server: InferenceProcess, body: bytes, detail: str) -> None:
    answer = httpx.post(f"{server.url}/v1/decide", content=body, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 400
    assert detail in answer.json()["detail"]


def test_denies_a_stranger(server: InferenceProcess) -> None:
    for token in ("", "Bearer wrong"):
        answer = httpx.post(f"{server.url}/v1/decide", json={"texts": []}, headers={"Authorization": token})
        assert answer.status_code == 401


def test_metrics_count_texts_and_name_the_release_but_hold_no_text(server: InferenceProcess) -> None:
    server.client().decide(["a peculiar sentence"])
    page = httpx.get(f"{server.url}/metrics").text
    assert 'heed_release_info{release="r0001"} 1.0' in page
    assert "heed_decide_texts_total" in page
    assert "peculiar" not in page


def test_a_swap_that_expects_another_release_changes_nothing(server: InferenceProcess) -> None:
    with pytest.raises(ReleaseConflict, match="r0001 serves, not r0009"):
        server.client().swap(release="r0010", bundle=str(server.bundles / "two"), expected="r0009")
    assert server.serves() == "r0001"


def test_of_two_swaps_that_expect_the_same_release_one_wins(server: InferenceProcess) -> None:
    def attempt(release: str) -> str:
        try:
            return server.client().swap(release=release, bundle=str(server.bundles / "two"), expected="r0001").release
        except ReleaseConflict:
            return "conflict"

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(attempt, ["r0002", "r0003"]))
    assert outcomes[0] == "conflict"
    assert outcomes[1] in ("r0002", "r0003")


def test_an_altered_bundle_is_refused_and_the_old_one_goes_on(server: InferenceProcess) -> None:
    altered = server.make_bundle("altered", seed=3)
    prompt = altered / "prompt.txt"
    prompt.write_text(prompt.read_text() + "!", encoding="utf-8")
    with pytest.raises(SwapRefused, match=r"prompt\.txt"):
        server.client().swap(release="r0004", bundle=str(altered), expected="r0001")
    assert server.serves() == "r0001"
    assert server.client().decide(["still here"])[0].release == "r0001"


def test_the_server_follows_the_pointer_without_being_asked(server: InferenceProcess) -> None:
    server.point_to("r0005", server.bundles / "two")
    wait_until(lambda: server.serves() == "r0005")


def test_swaps_under_load_lose_no_request_and_mix_no_releases(server: InferenceProcess) -> None:
    """Promise 2: clients ask without pause while the bundle is swapped six times."""
    bundles = {"r0001": "one"} | {f"r1{turn:03}": ("two", "three", "one")[turn % 3] for turn in range(6)}
    expected = {name: [decision.labels for decision in _decide_with(server, name)] for name in ("one", "two", "three")}
    assert expected["one"] != expected["two"] != expected["three"]
    done, failures, answers = threading.Event(), [], []

    def ask() -> None:
        client = server.client()
        while not done.is_set():
            try:
                answers.append(client.decide(TEXTS))
            except InferenceUnavailable as error:
                failures.append(str(error))

    swap(server, "r0001", "one", server.serves())
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    names = list(bundles)
    for before, after in itertools.pairwise(names):
        swap(server, after, bundles[after], before)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len({answer[0].release for answer in answers}) >= 3
    for answer in answers:
        (release,) = {decision.release for decision in answer}
        assert [decision.labels for decision in answer] == expected[bundles[release]]


def _decide_with(server: InferenceProcess, bundle: str) -> list[object]:
    swap(server, f"probe-{bundle}", bundle, server.serves())
    return list(server.client().decide(TEXTS))


def test_a_kill_in_mid_request_is_an_error_that_says_so_and_the_next_start_serves_again(tmp_path: Path) -> None:
    server = InferenceProcess(tmp_path)
    server.point_to("r0001", server.make_bundle("one"))
    server.start()
    outcome: list[object] = []
    asking = threading.Event()

    def ask() -> None:
        client = server.client()
        try:
            while True:
                asking.set()
                client.decide([f"{turn} {'long ' * 2000}" for turn in range(50)])
        except InferenceUnavailable as error:
            outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    asking.wait()
    server.kill()
    thread.join(60)
    assert len(outcome) == 1
    server.start()
    assert server.client().decide(["after the kill"])[0].release == "r0001"
    server.stop()
