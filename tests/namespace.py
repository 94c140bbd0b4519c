"""
Runs commands in a network namespace that has only a loopback of its own, where port 8650 leads to a UNIX socket.

Started as ``python -m tests.namespace SOCKET COMMANDS URL``, inside the namespace. Prints each command's exit status.
Fails if ``URL``, which is outside, can be reached.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request

_SIOCSIFFLAGS = 0x8914
_UP_AND_RUNNING = 0x1 | 0x40


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy until the end."""
    while data := source.recv(1 << 16):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)


def forward(listening: socket.socket, path: str) -> None:
    """Connect whoever comes to the UNIX socket."""
    while True:
        client, _ = listening.accept()
        service = socket.socket(socket.AF_UNIX)
        service.connect(path)
        for ends in ((client, service), (service, client)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


def main() -> None:
    """See that there is no way out, then run the commands."""
    path, commands, outside = sys.argv[1:]
    with socket.socket() as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))
    listening = socket.create_server(("127.0.0.1", 8650))
    threading.Thread(target=forward, args=(listening, path), daemon=True).start()
    try:
        urllib.request.urlopen(outside, timeout=5)
    except urllib.error.URLError:
        statuses = [subprocess.run(command, stdout=sys.stderr).returncode for command in json.loads(commands)]
        sys.stdout.write(" ".join(map(str, statuses)) + "\n")
    else:
        sys.exit("the outside can be reached")


if __name__ == "__main__":
    main()
