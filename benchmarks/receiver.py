"""What stands for a backend: takes whatever is posted to it. A process of its own, and a frugal
one, as it shares its core with the load.

    python -m benchmarks.receiver PORT {answers,hangs}

`GET` answers how many bytes have been posted to the same path.
"""

import asyncio
import socket
import sys
from collections import Counter
from typing import ClassVar

ANSWERS = {"answers": b"200 OK", "hangs": b""}


class Receiver(asyncio.Protocol):
    #: Bytes, by path.
    taken: ClassVar[Counter[bytes]] = Counter()

    def __init__(self, status: bytes) -> None:
        self._status = status
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head_ends := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:head_ends]).lower()
            _, found, value = head.partition(b"\r\ncontent-length:")
            length = int(value.split(b"\r\n", 1)[0]) if found else 0
            whole = head_ends + 4 + length
            if len(self._buffer) < whole:
                return
            del self._buffer[:whole]
            method, path, _ = head.split(b" ", 2)
            self.taken[path] += length
            if method == b"get":
                self._answer(b"200 OK", str(self.taken[path]).encode())
            elif self._status:
                self._answer(self._status, b"{}")

    def _answer(self, status: bytes, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )


async def main(port: int, manner: str) -> None:
    loop = asyncio.get_running_loop()
    if manner == "hangs":  # a datagram that nobody reads
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", port))
    else:
        await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", port))
    server = await loop.create_server(lambda: Receiver(ANSWERS[manner]), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
