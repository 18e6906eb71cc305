import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import NotInstalled
from .statsd import StatsD, running


@pytest.fixture
def statsd(tmp_path: Path) -> Iterator[StatsD]:
    try:
        with running(tmp_path) as server:
            yield server
    except NotInstalled as missing:
        pytest.skip(str(missing))


def send(statsd: StatsD, datagram: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(datagram.encode(), ("127.0.0.1", statsd.port))


def test_values_are_read_back(statsd: StatsD) -> None:
    send(statsd, "app.requests:2|c\napp.requests:1|c|@0.5\napp.latency:1.5|ms\napp.open:7|g")
    statsd.wait_for(lambda it: "app.open" in it.gauges())
    assert statsd.counters()["app.requests"] == 4
    assert statsd.counters()["statsd.bad_lines_seen"] == 0
    assert statsd.timers() == {"app.latency": [1.5]}


def test_long_series_are_whole(statsd: StatsD) -> None:
    send(statsd, "\n".join(f"app.latency:{value}|ms" for value in range(500)))
    statsd.wait_for(lambda it: "app.latency" in it.timers())
    assert statsd.timers()["app.latency"] == list(range(500))


def test_wait_reports_the_values(statsd: StatsD) -> None:
    send(statsd, "no metric at all")
    statsd.wait_for(lambda it: it.counters()["statsd.bad_lines_seen"] == 1)
    with pytest.raises(TimeoutError, match="bad_lines_seen': 1"):
        statsd.wait_for(lambda it: False, timeout=0)
