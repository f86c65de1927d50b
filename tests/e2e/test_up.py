"""`manage.py up`: starts, stops clean, starts again, recovers from a kill, and says what is wrong."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.inference import wait_until
from tests.stack import StackFailed, StackProcess, log_in

pytestmark = [pytest.mark.e2e]


@pytest.fixture
def stack(tmp_path: Path, settings: pytest.FixtureRequest) -> Iterator[StackProcess]:
    stack = StackProcess(tmp_path / "var with a blank", Path(settings.BASE_MODELS_DIR))
    yield stack
    stack.end()
    assert stack.left_over() == []


def test_starts_stops_clean_and_comes_back_with_everything_it_knew(stack: StackProcess) -> None:
    stack.start()
    ana = log_in(stack.url, "ana", stack.passwords()["ana"])
    assert ana.get("/").status_code == 200
    assert stack.interrupt() == 0
    assert stack.left_over() == []
    passwords = stack.passwords()
    stack.start()
    assert stack.passwords() == passwords
    assert log_in(stack.url, "ada", passwords["ada"]).get("/").status_code == 200


def test_recovers_from_a_kill_of_the_manager(stack: StackProcess) -> None:
    stack.start()
    orphans = [process for name in stack.marks() if name != "up" for process in stack.commands(name)]
    stack.kill()
    assert all(process.is_running() for process in orphans)
    stack.start()
    _, alive = psutil.wait_procs(orphans, timeout=5)
    assert alive == []
    log_in(stack.url, "mo", stack.passwords()["mo"])


def test_a_killed_process_is_started_again(stack: StackProcess) -> None:
    stack.start()
    for process in stack.commands("inference"):
        process.kill()
    wait_until(lambda: any("started again" in line for line in stack.lines))
    ada = log_in(stack.url, "ada", stack.passwords()["ada"])

    def classifies() -> bool:
        return ada.post("/api/v1/classify", json={"text": "I went to the store"}).status_code == 200

    wait_until(classifies, timeout_s=120)


def test_a_taken_port_is_named_with_a_way_out(stack: StackProcess) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", stack.port))
        other.listen()
        with pytest.raises(StackFailed, match=rf"port {stack.port} .* cannot be had[\s\S]*PORT={stack.port + 1}"):
            stack.start()


def test_a_second_start_on_the_same_folder_is_refused(stack: StackProcess) -> None:
    stack.start()
    second = StackProcess(stack.var_dir, stack.base_models)
    with pytest.raises(StackFailed, match="already runs"):
        second.start()
    assert httpx.get(f"{stack.url}/accounts/login/").status_code == 200
