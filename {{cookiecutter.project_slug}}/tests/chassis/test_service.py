"""What a service of the team's gets from the chassis, in its tests too."""

from my_service.chassis.handlers import JsonHandler
from my_service.chassis.service import Service
from my_service.chassis.settings import Settings, read

from .testing import UNWATCHED, ServiceTest


class Pool:
    is_open = False

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False


class Pooled(JsonHandler):
    def initialize(self, pool: Pool) -> None:
        self.pool = pool

    def post(self) -> None:
        self.finish({"open": self.pool.is_open, "body": self.read_json()})


class TestService(ServiceTest):
    def make_service(self) -> Service:
        self.pool = Pool()
        settings = read(Settings, UNWATCHED | self.environ)
        service = Service(settings, [(r"/pooled", Pooled, {"pool": self.pool})])
        service.on_startup.append(self.pool.open)
        service.on_shutdown.append(self.pool.close)
        self.addCleanup(lambda: self.assertFalse(self.pool.is_open))
        return service

    def test_startup_has_run_and_shutdown_will(self) -> None:
        answer = self.fetch("/pooled", method="POST", body='{"a": [1]}')
        assert answer.body == b'{"open": true, "body": {"a": [1]}}'

    def test_body_that_is_not_json_is_a_problem_of_the_client(self) -> None:
        for body in ("{", "", "\udcff".encode("utf-8", "surrogateescape"), "[" * 99_999):
            answer = self.fetch("/pooled", method="POST", body=body)
            assert answer.code == 400
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert b'"title": "The body is not valid JSON"' in answer.body

    def test_unknown_path_is_a_problem(self) -> None:
        answer = self.fetch("/nowhere")
        assert answer.code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["X-Request-ID"].encode() in answer.body

    def test_wrong_method_is_a_problem(self) -> None:
        answer = self.fetch("/pooled", method="DELETE")
        assert answer.code == 405
        assert b'"title": "Method Not Allowed"' in answer.body
