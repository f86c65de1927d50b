"""Put before everything else on PYTHONPATH: notes down every address that the process connects or sends to."""

import os
import sys
from typing import Any

WATCHED = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")


def note(event: str, args: tuple[Any, ...]) -> None:
    if event in WATCHED:
        with open(os.environ["HEED_SOCKET_LOG"], "a", encoding="utf-8") as file:
            file.write(f"{event} {args[1:] if event != 'socket.getaddrinfo' else args}\n")


if "HEED_SOCKET_LOG" in os.environ:
    sys.addaudithook(note)
    with open(os.environ["HEED_SOCKET_LOG"], "a", encoding="utf-8") as log:
        log.write(f"watching {os.getpid()}\n")
