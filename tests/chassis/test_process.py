"""The process around the service: its arguments, and that it ends."""

import pytest

from .settings import SERVICE, VERSION
from .testing import STAND_IN, process


@pytest.mark.parametrize("path", ["/thread", "/stubborn"])
def test_handler_that_cannot_be_stopped_does_not_hold_the_process(path: str) -> None:
    with process(DRAIN_TIMEOUT_SECONDS="0.1") as service:
        service.wait_until_listening()
        with service.get(path):
            # The next answer comes after the handler has begun.
            with service.get("/hello/x") as connection:
                assert b" 200 " in connection.recv(1024)
            service.process.terminate()
            assert service.wait() == 0
            assert "Stopped" in service.output()


@pytest.mark.parametrize("what", ["startup", "shutdown", "task", "thread"])
def test_what_ignores_its_cancellation_does_not_hold_the_process(what: str) -> None:
    with process(DRAIN_TIMEOUT_SECONDS="0.1", STUBBORN=what) as service:
        service.wait_until_listening()
        with service.get("/hello/x") as connection:
            assert b" 200 " in connection.recv(1024)
        service.process.terminate()
        assert service.wait() == 0
        assert "Stopped" in service.output()
        assert "Traceback" not in service.output()


def test_interpreter_is_not_torn_down_under_a_daemon_thread() -> None:
    """Before Python 3.14, a thread that is in C code meanwhile can crash the process."""
    with process(STUBBORN="library") as service:
        service.wait_until_listening()
        service.process.terminate()
        assert service.wait() == 0
        assert "Library's own end" in service.output()
        assert "Interpreter torn down" not in service.output()


def test_help() -> None:
    with process(STAND_IN, "--help") as service:
        assert service.wait() == 0
        assert service.output().startswith(f"Usage: {SERVICE} [--help | --version | openapi]\n")


def test_version() -> None:
    with process(STAND_IN, "--version", PORT="wrong") as service:
        assert service.wait() == 0
        assert service.output() == f"{SERVICE} {VERSION}\n"


@pytest.mark.parametrize("argument", ["--port=80", "start", "-v"])
def test_other_arguments_are_rejected(argument: str) -> None:
    with process(STAND_IN, argument) as service:
        assert service.wait() == 64
        assert service.output().startswith("Usage: ")


def test_misspelled_setting_is_named_without_its_value() -> None:
    with process(MAX_CONECTIONS="hidden", DRAIN_TIMEOUT="hidden") as service:
        service.wait_until_listening()
        assert "MAX_CONECTIONS is not a setting; did you mean MAX_CONNECTIONS?" in service.output()
        assert "hidden" not in service.output()
