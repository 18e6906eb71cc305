"""The process around the service: its arguments, and that it ends."""

import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from .settings import SERVICE, VERSION
from .testing import MAIN, STAND_IN, Process, eventually, http, inherited, listening, process

forks = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/thread", ""),
        ("/stubborn", ""),
        *(("/", what) for what in ("startup", "shutdown", "task", "thread")),
    ],
)
def test_what_cannot_be_stopped_does_not_hold_the_process(path: str, what: str) -> None:
    with listening(DRAIN_TIMEOUT_SECONDS="0.1", STUBBORN=what) as service, service.get(path):
        # Once it is answered, the one before has begun.
        assert service.fetch("/hello/x")
        assert service.stop() == 0
        assert "Stopped" in service.output()
        assert not what or "Traceback" not in service.output()


def test_interpreter_is_not_torn_down_under_a_daemon_thread() -> None:
    """Before Python 3.14, a thread that is in C code meanwhile can crash the process."""
    with listening(STUBBORN="library") as service:
        assert service.stop() == 0
        assert "Library's own end" in service.output()
        assert "Interpreter torn down" not in service.output()


@pytest.mark.parametrize("environ", [{}, {"SILENT": "1", "FEATURES": "probes"}])
@pytest.mark.parametrize("what", ["task", "atexit"])
def test_what_never_ends_at_exit_does_not_hold_the_process(
    what: str, environ: dict[str, str]
) -> None:
    with listening(STUBBORN=what, **environ) as service:
        assert service.stop() == 0


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the second while it is read
        return False


def children_of(service: Process) -> list[int]:
    service.wait_for_output("Children")
    (line,) = re.findall("^Children(.*)$", service.output(), re.MULTILINE)
    return [int(pid) for pid in line.split()]


@forks
@pytest.mark.parametrize("kind", ["process", "deaf", "daemon", "executor", "pool"])
def test_children_end_with_the_service(kind: str) -> None:
    with process(FORK=kind) as service:
        children = children_of(service)
        assert all(map(is_running, children))
        assert service.stop() == 0
        assert '"Stopped"' in service.output().splitlines()[-1], service.output()
        assert children
        eventually(lambda: not any(map(is_running, children)))


@forks
def test_child_that_is_told_ends() -> None:
    with process(FORK="told") as service:
        service.wait_for_output("Ended with -15")


@forks
@pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="Python takes the loop from a child, so sys.exit() does not end it: os._exit() does",
)
def test_child_that_exits_leaves_the_service_alone() -> None:
    with process(FORK="exits") as service:
        service.wait_for_output("Children")
        service.wait_for_output("Ended with 5")
        assert service.fetch("/hello/x")
        assert "Stopping" not in service.output()
        assert service.output().count("is running in") == 1


@forks
def test_child_that_comes_back_to_the_event_loop_ends() -> None:
    with listening() as service:
        with service.get("/forked"):
            service.wait_for_output("Ending a forked child")
            assert service.fetch("/hello/x")
        assert service.output().count("Ending a forked child") == 1
        assert service.stop() == 0


HANDLER_THAT_FAILS = """
import logging
from tests.chassis import stand_in

class Failing(logging.Handler):
    def emit(self, record):
        raise LookupError("no room")

def fail(record):
    raise LookupError("no filter")

logging.getLogger().addHandler(Failing())
if {filters}:
    for each in logging.getLogger().handlers:
        each.addFilter(fail)
stand_in.main()
"""


@pytest.mark.parametrize("filters", [False, True])
def test_handler_or_filter_of_the_log_that_fails_costs_its_line_only(filters: bool) -> None:
    with listening(HANDLER_THAT_FAILS.format(filters=filters)) as service:
        service.fetch("/hello/x")
        with service.get("/boom") as connection:
            assert connection.recv(1024).startswith(b"HTTP/1.1 500")
        for text in ("no filter" if filters else "no room", "Unhandled exception in GET /boom"):
            assert text in service.output()
        assert service.stop() == 0


@forks
def test_child_keeps_neither_port_nor_connections() -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    with listening() as service:
        port = service.port
        with service.get("/fork") as connection:
            child = int(connection.recv(1024).rpartition(b"\n")[2])
            try:
                service.process.kill()
                service.wait()
                assert connection.recv(1024) == b""
                with socket.create_server(("127.0.0.1", port)):
                    assert is_running(child)
            finally:
                os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    ("where", "status", "error"),
    [
        *((w, 3, "SystemExit(3)") for w in "handler later callback thread background".split()),
        ("interrupt", 128 + signal.SIGINT, "KeyboardInterrupt()"),
        ("stop", 1, "RuntimeError"),
    ],
)
def test_what_ends_the_process_drains_and_leaves_a_line(
    where: str, status: int, error: str
) -> None:
    with listening() as service:
        with service.connect(http("PUT /upload", body=b"ha", size=4)) as upload:
            service.fetch("/")  # once it is answered, the one before has been received
            with service.get(f"/exit/{where}") as connection:
                assert connection.recv(1024).startswith(b"HTTP/1.1 ")
            service.wait_for_output("Stopping because of ")
            upload.sendall(b"lf")
            assert b"4 uploaded" in upload.recv(1024)
        assert service.wait() == status
        assert service.output().count(f"Stopping because of {error}") == 1
        assert "Stopped" in service.output()


@pytest.mark.parametrize("when", ["exit", "exit in shutdown"])
def test_exit_at_the_start_or_in_the_end_stops_cleanly(when: str) -> None:
    with process(STUBBORN=when) as service:
        if when != "exit":
            service.wait_until_listening()
            service.process.terminate()
        assert service.wait() == 3
        assert "Stopped" in service.output()
        assert ("Stopping because of SystemExit(3)" in service.output()) == (when == "exit")


SHOP = """
from tests.chassis.routes import make_service
print("{name}", flush=True)
"""


COLLECTING = """
import gc
gc.set_threshold({usual}, 11, 12)

def make_service(settings):
    print("loading", gc.get_threshold(), flush=True)
    {own}
    from tests.chassis import routes
    service = routes.make_service(settings)
    service.on_startup.append(serving)
    return service

async def serving():
    print("serving", gc.get_threshold(), gc.get_freeze_count() > 0, flush=True)
"""


@pytest.mark.parametrize(
    ("usual", "own", "loading", "serving"),
    [
        (700, "", (100_000, 11, 12), (700, 11, 12)),
        (500_000, "", (500_000, 11, 12), (500_000, 11, 12)),
        (0, "", (0, 11, 12), (0, 11, 12)),
        # What a team sets meanwhile stays.
        (700, "gc.set_threshold(50_000, 20, 30)", (100_000, 11, 12), (50_000, 20, 30)),
        (700, "gc.set_threshold(0, 11, 12)", (100_000, 11, 12), (0, 11, 12)),
    ],
)
def test_garbage_collector_waits_until_all_is_loaded(
    usual: int, own: str, loading: tuple[int, ...], serving: tuple[int, ...]
) -> None:
    with listening(COLLECTING.format(usual=usual, own=own) + MAIN.format("__name__")) as service:
        assert service.stop() == 0
        assert f"loading {loading}\n" in service.output()
        assert f"serving {serving} True\n" in service.output()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot replace a process")
def test_reload_starts_again_after_each_change_and_after_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN.format("'shop.app'"))
    shop = tmp_path / "shop"
    shop.mkdir()
    app = shop / "app.py"
    app.write_text(SHOP.format(name="first"))
    page = shop / "page.html"
    page.write_text("tea")
    path = os.pathsep.join([str(tmp_path), inherited()["PYTHONPATH"]])
    environ = {"PYTHONPATH": path, "DRAIN_TIMEOUT_SECONDS": "60", "REUSE_PRT": "hidden"}
    with listening("main", "--reload", **environ) as service:
        assert "did you mean REUSE_PORT?" in service.output()
        assert "hidden" not in service.output()
        with service.get("/slow") as connection:
            change(app, SHOP.format(name="second"), service, "second")
            assert connection.recv(1024) == b""
        change(app, "no python", service, "Waiting for a change")
        assert "SyntaxError" in service.output()
        change(app, SHOP.format(name="third"), service, "third")
        service.wait_for_output(" is running in ", 3)
        dotenv = service.directory / ".env"
        change(dotenv, "MAX_CONNECTIONS=some", service, "MAX_CONNECTIONS: should be")
        service.wait_for_output("Waiting for a change of .env or the source")
        app.write_text(SHOP.format(name="fourth"))
        change(dotenv, "MAX_CONNECTIONS=10", service, "fourth")
        service.wait_for_output(" is running in ", 4)
        change(page, "more tea", service, "page.html modified")
        service.wait_for_output(" is running in ", 5)
        assert "Stopping because" not in service.output()
        assert service.stop() == 0


def change(file: Path, text: str, service: Process, expected: str) -> None:
    """Changes a file until that is noticed, which Tornado does half a second after it has begun to
    watch."""

    def is_noticed() -> bool:
        assert service.process.poll() is None, service.output()
        written = file.with_suffix(".new")
        written.write_text(text)
        written.replace(file)  # at once, as it may be read meanwhile
        time.sleep(0.2)
        return expected in service.output()

    eventually(is_noticed, service.output)


NOT_HERE = "--reload is for development: ENVIRONMENT is production\n"
NO_PORT = "Invalid settings:\n  PORT: should be a whole number from 0 to 65535, not 'tcp://a'\n"
USAGE = f"Usage: {SERVICE} [--help | --version | --reload | openapi]\n"


@pytest.mark.parametrize(
    ("argument", "environ", "status", "output"),
    [
        ("--help", {}, 0, USAGE),
        ("--version", {"PORT": "wrong"}, 0, f"{SERVICE} {VERSION}\n"),
        ("--port=80", {}, 64, USAGE),
        ("start", {}, 64, USAGE),
        ("-v", {}, 64, USAGE),
        ("--reload", {"ENVIRONMENT": "production"}, 64, NOT_HERE),
        ("openapi", {"PORT": "tcp://a"}, 78, NO_PORT),
    ],
)
def test_argument(argument: str, environ: dict[str, str], status: int, output: str) -> None:
    with process(STAND_IN, argument, **environ) as service:
        assert service.wait() == status
        assert service.output().startswith(output)
        assert output == USAGE or service.output() == output
