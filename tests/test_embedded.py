"""The embedded servers: in a path with a blank, after a kill, and with a stale pid file."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from config.embedded import EmbeddedPostgres, EmbeddedValkey

ROOT = Path(__file__).resolve().parent.parent

START_AND_DIE = """
import os, sys
from pathlib import Path
from config.embedded import EmbeddedPostgres, EmbeddedValkey
folder = Path(sys.argv[1])
print(EmbeddedPostgres(folder / "postgres").start(), flush=True)
print(EmbeddedValkey(folder / "valkey").start(), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "with a blank"
    path.mkdir()
    return path


def test_a_killed_owners_servers_are_taken_over_with_their_data(folder: Path) -> None:
    owner = subprocess.run([sys.executable, "-c", START_AND_DIE, str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert owner.returncode == -signal.SIGKILL
    database_url, redis_url = owner.stdout.split()
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    with redis.Redis.from_url(redis_url) as client:
        client.set("kept", "1")
    postgres, valkey = EmbeddedPostgres(folder / "postgres"), EmbeddedValkey(folder / "valkey")
    try:
        assert postgres.start() == database_url
        assert valkey.start() == redis_url
    finally:
        valkey.stop()
        postgres.stop()
    # A new start after a clean stop: another port for Valkey, the same data in both.
    try:
        with psycopg.connect(postgres.start()) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
        with redis.Redis.from_url(valkey.start()) as client:
            assert client.get("kept") == b"1"
    finally:
        valkey.stop()
        postgres.stop()


def test_a_pid_file_that_names_a_stranger_does_not_stop_the_start(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder / "postgres")
    try:
        postgres.start()
        assert postgres._process is not None
        pid = postgres._process.pid
        psutil.Process(pid).kill()
        psutil.wait_procs([psutil.Process(pid)], timeout=10)
        pid_file = folder / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
        postgres = EmbeddedPostgres(folder / "postgres")
        with psycopg.connect(postgres.start()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        postgres.stop()


def test_valkey_refuses_a_stranger_without_the_password(folder: Path) -> None:
    valkey = EmbeddedValkey(folder / "valkey")
    try:
        port = valkey.start().rpartition(":")[2].partition("/")[0]
        with redis.Redis(port=int(port)) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    finally:
        valkey.stop()
