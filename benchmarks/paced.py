"""Load at a steady rate, whatever the service makes of it: a process of its own.

The schedule is fixed before the first request, and a request's latency counts from the moment it
was due: one that waits behind a slow answer shows the whole wait. Prints one line of JSON.
"""

import argparse
import gc
import json
import select
import socket
from collections import deque
from time import perf_counter

CONNECTIONS = 32
GRACE_SECONDS = 0.5
"""Beyond the schedule's end; then a service that can't keep up is not waited for any longer."""


def pace(port: int, rate: float, seconds: float, every: int) -> list[float]:
    """Seconds from when each request was due to its answer, of those answered in time.

    Of `every` requests one shall fail; 0 for none. Raises OSError where a connection fails.
    """
    good, bad = (
        f"GET /bench/{name} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        for name in ("x", "fail")
    )
    idle = deque(socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS))
    due: dict[socket.socket, float] = {}
    partial: dict[socket.socket, bytes] = {}
    latencies: list[float] = []
    sent, count = 0, int(rate * seconds)
    start = perf_counter()
    end = start + seconds + GRACE_SECONDS
    while len(latencies) < count and (now := perf_counter()) < end:
        while idle and sent < count and start + sent / rate <= now:
            connection = idle.popleft()
            due[connection] = start + sent / rate
            sent += 1
            connection.sendall(bad if every and sent % every == 0 else good)
        next_due = start + sent / rate if idle and sent < count else end
        readable, _, _ = select.select(list(due), [], [], max(0.0, next_due - perf_counter()))
        now = perf_counter()
        for connection in readable:
            received = connection.recv(65536)
            if not received:
                raise ConnectionError("The service has closed a connection")
            answer = partial.pop(connection, b"") + received
            if not _is_complete(answer):
                partial[connection] = answer
                continue
            latencies.append(now - due.pop(connection))
            idle.append(connection)
    for connection in (*idle, *due):
        connection.close()
    return latencies


def _is_complete(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    _, _, length = head.lower().partition(b"\r\ncontent-length:")
    return bool(end) and len(body) >= int(length.split(b"\r\n", 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=float, help="requests a second")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--every", type=int, default=0, help="of so many one shall fail")
    options = parser.parse_args()
    # Its own pauses would count as the service's.
    gc.disable()
    latencies = sorted(pace(options.port, options.rate, options.seconds, options.every))
    if not latencies:
        raise SystemExit("Nothing has been answered")
    count = int(options.rate * options.seconds)
    result = {
        "asked": count,
        "answered": len(latencies),
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[len(latencies) * 99 // 100],
        "max": latencies[-1],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
