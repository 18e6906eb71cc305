"""What the rate limit refuses."""

from .testing import ChassisTest


class TestRateLimit(ChassisTest):
    environ = {"RATE_LIMIT_PER_SECOND": "0.001", "RATE_LIMIT_BURST": "2"}  # noqa: RUF012

    def test_what_exceeds_the_burst_is_refused(self) -> None:
        statuses = [self.fetch("/nowhere").code for _ in range(3)]
        assert statuses == [404, 404, 429]
        refused = self.fetch("/nowhere")
        assert 0 < int(refused.headers["Retry-After"]) <= 1000
        totals = {name: total for name, _, total, _ in self.app.totals()}
        assert totals["rate_limited_requests"] == 2


class TestWithout(ChassisTest):
    def test_without_a_limit_all_are_let_in(self) -> None:
        assert {self.fetch("/nowhere").code for _ in range(200)} == {404}
