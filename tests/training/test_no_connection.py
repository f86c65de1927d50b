"""A job talks to nobody: no hub, no tracker, no telemetry. An audit hook inside the job's process is the witness."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.training.toyruns import ROOT, make_run_dir

HOOK = Path(__file__).parent / "watched"


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, str]:
    """Environment of a process that notes down its connections. As at a bare prompt: no switch forbids the hub."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRL_"))}
    return {
        **bare,
        "PYTHONPATH": f"{HOOK}:{ROOT}",
        "HEED_SOCKET_LOG": str(tmp_path / "sockets.log"),
        "HEED_THREADS": "1",
    }


def read_log(env: Mapping[str, str]) -> tuple[int, list[str]]:
    """How many processes were watched, and what they connected to."""
    lines = Path(env["HEED_SOCKET_LOG"]).read_text(encoding="utf-8").splitlines()
    started = [line for line in lines if line.startswith("watching ")]
    return len(started), [line for line in lines if line not in started]


def test_the_witness_sees_a_connection(watched: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        subprocess.run([sys.executable, "-c", code], env=watched, check=True)
    watched_processes, seen = read_log(watched)
    assert watched_processes == 1
    assert f"socket.connect (('127.0.0.1', {port}),)" in seen


@pytest.mark.parametrize("kind", ["bert", "sft"])  # a plain loop, and a trainer of trl with peft
def test_a_run_opens_no_connection(kind: str, bases: Path, tmp_path: Path, watched: dict[str, str]) -> None:
    run_dir = make_run_dir(tmp_path / "run", bases, kind, epochs=1, batch_size=8, max_tokens=32)
    command = [sys.executable, "-m", f"training.jobs.{kind}", "--run-dir", str(run_dir)]
    assert subprocess.run(command, cwd=ROOT, env=watched, timeout=300, check=False).returncode == 0
    assert (run_dir / "manifest.json").is_file()
    watched_processes, seen = read_log(watched)
    assert watched_processes >= 1
    assert seen == []
