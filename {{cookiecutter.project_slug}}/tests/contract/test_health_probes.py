"""What the probes promise."""

import json
from typing import Any

from .service import ContractTest, process


async def refuse() -> None:
    raise ConnectionError("10.0.0.7 refused")


class TestHealth(ContractTest):
    def test_a_service_that_works_is_alive_and_ready_on_both_ports(self) -> None:
        for path in ("/livez", "/readyz", "/health"):
            assert self.fetch(path).code == 200
            assert self.fetch_admin(path).code == 200

    def test_while_a_check_fails_the_service_is_alive_and_not_ready(self) -> None:
        self.service.health.add("prices", refuse)
        assert self.fetch("/livez").code == 200
        assert self.fetch("/readyz").code == 503
        assert self.fetch("/health").code == 503

    def test_only_the_admin_port_shows_why_a_check_fails(self) -> None:
        self.service.health.add("prices", refuse)
        (shown,) = self.results(self.fetch("/health").body)
        assert shown["status"] == "fail"
        assert "output" not in shown
        (shown,) = self.results(self.fetch_admin("/health").body)
        assert shown["output"] == "ConnectionError: 10.0.0.7 refused"

    def results(self, body: bytes) -> list[dict[str, Any]]:
        return [*json.loads(body)["checks"]["prices"]]

    def test_while_draining_the_service_is_alive_and_not_ready(self) -> None:
        with process(DRAIN_DELAY_SECONDS="60") as service:
            url = service.read_until(r"Listening on (http://\S+:\d+)")[1]
            service.read_until("is running")
            service.terminate()
            service.read_until("Draining")
            assert self.fetch(f"{url}/livez").code == 200
            assert self.fetch(f"{url}/readyz").code == 503
            service.kill()
