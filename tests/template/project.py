"""A generated project, and its service as a process of its own."""

import ast
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from functools import cache
from pathlib import Path

import uv
import yaml
from cookiecutter.main import cookiecutter

from .. import backends
from ..backends import RUN_SECONDS, WAIT_SECONDS, eventually, free_port

TEMPLATE = Path(__file__).parents[2]
SOURCE = TEMPLATE / "{{cookiecutter.project_slug}}"
CHASSIS = SOURCE / "src" / "tornado_chassis"
# Where a package comes from that is never fetched.
NOWHERE = "https://packages.example.com/tornado_chassis-0-py3-none-any.whl"
OLDEST, NEWEST = (3, 11), (3, 14)
OLDEST_COOKIECUTTER = re.findall(
    r'"cookiecutter>=([\d.]+)"', (TEMPLATE / "pyproject.toml").read_text(encoding="utf-8")
)[0]
# What a test that says nothing else generates. A fork may have other defaults, and other choices:
# where it does not offer one of these, its first is taken.
REFERENCE = {
    "project_name": "My Service",
    "project_slug": "my-service",
    "description": "A Tornado service.",
    "author_name": "Your Name",
    "author_email": "you@example.com",
    "license": "MIT",
    "health": "probes",
    "logging": "structured",
    "metrics": "prometheus",
    "error_tracking": "sentry",
    "tracing": "stub",
    "console": "page",
    "chassis": "copy",
    "deployment": "kubernetes",
    "ci": "github",
}
STOP_SECONDS = 60.0
# With a backend that hangs: its clients would wait for 30 seconds and more.
PROMPTLY = 20.0

# What would change how a project's own tools behave, were it inherited.
_FOREIGN = re.compile(
    r"(COV|COVERAGE|PYTEST|PYTHON|MYPY|RUFF|VIRTUAL_ENV|CONDA|COOKIECUTTER)(_.*|[A-Z]*)"
)
# What a process needs of the machine; a service gets nothing else but its settings.
MACHINE = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT")


@dataclass
class Project:
    """A project on disk. Its environment is made by `sync`, from its `pyproject.toml` alone."""

    path: Path
    answers: dict[str, str]
    environment: Path
    #: The interpreter that the environment is made with.
    interpreter: Path
    # What stands at `environment` may be another project's.
    _is_synced: bool = False

    @property
    def slug(self) -> str:
        return self.path.name

    @property
    def package(self) -> str:
        [package] = (path.parent.name for path in self.path.glob("src/*/__main__.py"))
        return package

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    def add_handler(self, source: str, route: str) -> None:
        """Adds a handler's source, and a route such as `(r"/orders", handlers.Order)`."""
        package = self.path / "src" / self.package
        with (package / "handlers.py").open("a", encoding="utf-8") as handlers:
            handlers.write(f"\n\n{source}")
        app = package / "app.py"
        text = app.read_text(encoding="utf-8")
        hello = '        (r"/hello/(?P<name>[^/]+)", handlers.Hello),\n'
        assert text.count(hello) == 1
        app.write_text(text.replace(hello, f"{hello}        {route},\n"), encoding="utf-8")

    def add_failing_orders(self) -> None:
        """Adds `/orders/{number}`, where each POST ends with an exception that nobody handles."""
        self.add_handler(
            """\
class Order(JsonHandler):
    def post(self, number: str) -> None:
        raise ValueError(f"order {number} is not there")
""",
            r'(r"/orders/(?P<number>\d+)", handlers.Order)',
        )

    def sync(self, *options: str) -> None:
        """Makes the environment, or makes it what `pyproject.toml` says now."""
        self.uv("sync", "--quiet", f"--python={self.interpreter}", *options)
        self._is_synced = True

    def uv(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        """What `uv ARGV` prints, run in the project."""
        return self.run(uv.find_uv_bin(), *argv, env=env)

    def run(
        self,
        *argv: str | Path,
        env: Mapping[str, str] | None = None,
        status: int = 0,
    ) -> str:
        """What a command prints, run in the project and its environment.

        `env` is added to the environment variables. Raises AssertionError with all that was printed
        where the command does not end with `status`; it is killed if it does not end.
        """
        with subprocess.Popen(
            argv,
            cwd=self.path,
            env={**self.variables(), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            watchdog = threading.Timer(RUN_SECONDS, process.kill)
            watchdog.start()
            output = process.communicate()[0]
            watchdog.cancel()
        command = " ".join(map(str, argv))
        assert process.returncode == status, f"{command}: status {process.returncode}\n{output}"
        return output

    def variables(self) -> dict[str, str]:
        """Environment variables as in a shell with the project's environment activated."""
        outer = os.environ.get("VIRTUAL_ENV", sys.prefix)
        path = [
            each
            for each in os.environ["PATH"].split(os.pathsep)
            if not Path(each).is_relative_to(outer)
        ]
        inherited = {
            name: value for name, value in os.environ.items() if not _FOREIGN.fullmatch(name)
        }
        return {
            **inherited,
            "PATH": os.pathsep.join([str(self.environment / "bin"), *path]),
            "UV_PROJECT_ENVIRONMENT": str(self.environment),
            "UV_PYTHON_DOWNLOADS": "never",
            "MYPY_CACHE_DIR": str(self.environment.parent / "mypy"),
        }

    @contextmanager
    def start(self, **settings: str) -> Iterator["Service"]:
        """Runs the service with these settings on free ports, until the end of the block.

        Enters the block when it listens; makes the environment where there is none yet. What the
        service prints goes to a file beside the project.
        """
        if not self._is_synced:
            self.sync()
        service = self._spawn(settings)
        try:
            service.wait_until_up()
            yield service
        finally:
            service.process.kill()
            service.process.wait()

    def _spawn(self, settings: Mapping[str, str]) -> "Service":
        machine = {name: os.environ[name] for name in MACHINE if name in os.environ}
        defaults = {
            "PORT": str(free_port()),
            "ADMIN_PORT": str(free_port()),
            "DRAIN_DELAY_SECONDS": "0",
            # As there is no terminal, it has to be said for the admin port to be open.
            "ENVIRONMENT": "development",
        }
        environ = {**machine, **defaults, **settings}
        log = self.path.parent / f"{self.slug}-{environ['PORT']}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self.python, "-m", self.package],
                cwd=self.path,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return Service(process, int(environ["PORT"]), int(environ["ADMIN_PORT"]), log)


@dataclass
class Service:
    process: "subprocess.Popen[bytes]"
    port: int
    admin_port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def output(self) -> str:
        """What the service has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def get(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        admin: bool = False,
        method: str = "GET",
        body: str | None = None,
    ) -> tuple[int, Message, str]:
        """Status, headers and body of the answer to a request, on the admin port if so asked."""
        port = self.admin_port if admin else self.port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()
        finally:
            connection.close()

    def resident_bytes(self) -> int:
        statm = Path(f"/proc/{self.process.pid}/statm")
        return int(statm.read_text().split()[1]) * 4096

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """The exit status."""
        return self.process.wait(timeout)

    def terminate(self, timeout: float = STOP_SECONDS) -> int:
        """Asks the service to stop, and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait_until_up(self) -> None:
        """Waits for the port to take connections."""

        def is_up() -> bool:
            status = self.process.poll()
            if status is not None:
                raise RuntimeError(f"The service ended with {status}:\n{self.output()}")
            # No request, as it would be logged and counted.
            with socket.create_connection(("127.0.0.1", self.port)):
                return True

        try:
            eventually(is_up, "the service")
        except TimeoutError as error:
            raise TimeoutError(self.output()) from error


def reference(**answers: str) -> dict[str, str]:
    """These answers, and those of `REFERENCE` to all other prompts."""
    prompts = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    offered = {
        key: values
        for key, values in prompts.items()
        if isinstance(values, list) and not key.startswith("_")
    }
    kept = {
        key: answer
        for key, answer in REFERENCE.items()
        if key in prompts and answer in offered.get(key, [answer])
    }
    if "project_name" in answers:
        del kept["project_slug"]
    found = {**{key: values[0] for key, values in offered.items()}, **kept, **answers}
    if found["chassis"] == "package":
        found.setdefault("__chassis_source", NOWHERE)
    return found


def render(
    directory: Path, home: Path, answers: Mapping[str, str], template: Path = TEMPLATE
) -> Path:
    """Generates a project into `directory` and returns its path.

    What `answers` leave open is as the template has it; `reference` leaves nothing open. Nothing of
    the person's own cookiecutter configuration is used: what cookiecutter keeps goes to `home`.
    """
    home.mkdir(parents=True, exist_ok=True)
    config = home / "cookiecutter.yaml"
    config.write_text(
        yaml.safe_dump(
            {"cookiecutters_dir": str(home / "templates"), "replay_dir": str(home / "replay")}
        )
    )
    directory.mkdir(parents=True, exist_ok=True)
    made = cookiecutter(
        str(template),
        no_input=True,
        extra_context=dict(answers),
        output_dir=str(directory),
        config_file=str(config),
    )
    return Path(made)


def setting_fields(project: Path) -> set[str]:
    """The fields of all settings: the team's and those of the chassis."""
    sources = [*project.glob("src/*/settings.py"), *project.glob("src/*/settings/*.py")]
    return {
        node.target.id
        for path in sources
        for model in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(model, ast.ClassDef)
        for node in model.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def tool(*argv: str | Path, cwd: Path | None = None) -> str:
    """What a command prints. Raises RuntimeError with all of it unless it ends with status 0."""
    # Without a worker's own settings of pytest, which a pytest below it would obey.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env = {**kept, "UV_PYTHON_DOWNLOADS": "never"}
    return backends.tool(*argv, cwd=cwd, env=env)


def git(directory: Path, *argv: str) -> str:
    """What git prints, whatever this machine's configuration says."""
    environ = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "Somebody",
        "GIT_AUTHOR_EMAIL": "somebody@example.com",
        "GIT_COMMITTER_NAME": "Somebody",
        "GIT_COMMITTER_EMAIL": "somebody@example.com",
    }
    done = subprocess.run(
        ["git", *argv], cwd=directory, env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def copy_checkout(target: Path) -> None:
    """Copies the files of this repository as they are now, committed or not."""
    listed = git(TEMPLATE, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in listed.split("\0"):
        if (TEMPLATE / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TEMPLATE / name, target / name)


@cache
def interpreters() -> dict[tuple[int, int], Path]:
    """The supported interpreters on this machine by version, oldest first."""
    found = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        version, name = (3, minor), f"python3.{minor}"
        candidates = [*pyenv.glob(f"versions/3.{minor}.*/bin/{name}"), shutil.which(name)]
        if version == sys.version_info[:2]:
            candidates.append(Path(sys.base_prefix, "bin", name))
        works = (Path(each) for each in candidates if each and _is_python(each, version))
        if path := next(works, None):
            found[version] = path
    return found


def interpreter() -> Path:
    """The one that $TEMPLATE_PYTHON names, or the newest on this machine."""
    named = os.environ.get("TEMPLATE_PYTHON")
    return Path(named) if named else list(interpreters().values())[-1]


def _is_python(path: str | Path, version: tuple[int, int]) -> bool:
    # A shim of a version manager may stand for a version that is not there.
    probe = [path, "-c", "import sys; print(sys.version_info[:2])"]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    return done.stdout.strip() == str(version)
