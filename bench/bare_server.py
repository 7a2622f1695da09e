"""The floor: sockets that receive a packet and send one back each 20 ms, in plain Python, and nothing else.

Stands where `bench.plane_server` stands, so that its figures tell what this machine charges for packets alone.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

TICK = 0.02


def main() -> None:
    """Answer questions and packets until the pipe closes."""
    sockets: list[tuple[socket.socket, tuple[str, int]]] = []
    questions = select.poll()
    questions.register(sys.stdin.fileno(), select.POLLIN)
    packet, buffer = memoryview(bytearray([0x80] + [0] * 171)), memoryview(bytearray(1536))
    waiting = select.epoll()
    by_fd: dict[int, socket.socket] = {}
    due = time.monotonic()
    while True:
        due += TICK
        time.sleep(max(0.0, due - time.monotonic()))
        if questions.poll(0):
            line = sys.stdin.readline()
            if not line:
                return
            for port in json.loads(line).get("legs", []):
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.setblocking(False)
                sock.bind(("127.0.0.1", 0))
                waiting.register(sock.fileno(), select.EPOLLIN)
                by_fd[sock.fileno()] = sock
                sockets.append((sock, ("127.0.0.1", port)))
            legs = [sock.getsockname()[1] for sock, _ in sockets]
            nothing = {"due": 0, "sent": 0, "p50": 0, "p99": 0, "worst": 0, "said": [], "heard": []}
            print(json.dumps({"legs": legs, **nothing, "speech": 1}), flush=True)
        while ready := waiting.poll(0, len(sockets) or 1):
            for fd, _ in ready:
                by_fd[fd].recvfrom_into(buffer)
        for sock, phone in sockets:
            sock.sendto(packet, phone)


if __name__ == "__main__":
    main()
