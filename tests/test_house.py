"""A fork, as a company makes one: its defaults, one choice less, a backend and a feature more.

Graphite and a rate limit are built step by step: before each, the tests say what to do next. What
they consist of stands in `tests/house/`.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruff import find_ruff_bin

from . import choices, combinations
from .project import TEMPLATE
from .test_choices import SOURCE, copy, offer, problems, ran, replace

__all__ = ["copy"]

HOUSE = TEMPLATE / "tests" / "house"
CHASSIS = choices.CHASSIS
DEFAULTS = {
    "project_name": "Acme Service",
    "description": "A service of Acme's.",
    "author_name": "Acme Platform",
    "author_email": "platform@acme.example",
    "__registry": "registry.acme.example",
}


# Tests of the template that read all of it, or have a case for each choice.
READING = (
    "choices",
    "docs",
    "layout",
    "presets",
    "template",
    "variants",
)


@dataclass(frozen=True)
class Step:
    #: What is said before it, and no longer after it.
    message: str
    take: Callable[[Path], object]


def label(prompt: str, choice: str, text: str) -> Callable[[Path], None]:
    def take(template: Path) -> None:
        path = template / "cookiecutter.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["__prompts__"].setdefault(prompt, {"__prompt__": prompt})[choice] = text
        path.write_text(json.dumps(content, indent=2), encoding="utf-8")

    return take


def unlabel(prompt: str, choice: str) -> Callable[[Path], None]:
    def take(template: Path) -> None:
        path = template / "cookiecutter.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["__prompts__"][prompt][choice]
        path.write_text(json.dumps(content, indent=2), encoding="utf-8")

    return take


def drop(*paths: str) -> Callable[[Path], None]:
    def take(template: Path) -> None:
        for each in paths:
            path = template / each
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return take


def drop_text(path: str, *patterns: str) -> Callable[[Path], None]:
    def take(template: Path) -> None:
        text = (template / path).read_text(encoding="utf-8")
        for pattern in patterns:
            text, count = re.subn(pattern, "", text)
            assert count, f"{path} has no {pattern!r}"
        (template / path).write_text(text, encoding="utf-8")

    return take


def drop_words(prompt: str, choice: str) -> Callable[[Path], None]:
    return drop_text("tests/test_render.py", rf'    \("{prompt}", "{choice}"\): .*\n')


def drop_condition(path: str, prompt: str, choice: str) -> Callable[[Path], None]:
    """Drops what is for the choice alone, with its tags."""
    # An `elif` ends where the next tag is, and an `if` with its `endif`.
    alone = re.compile(
        rf'^ *# {{% (?:if (?P<if>)|elif )cookiecutter.{prompt} == "{choice}" %}}\n'
        r"(?:(?! *# {% ).*\n)*(?(if) *# {% endif %}\n)",
        re.MULTILINE,
    )

    def take(template: Path) -> None:
        text = (template / path).read_text(encoding="utf-8")
        without, count = alone.subn("", text)
        assert count, f"{path} has no condition of {choice} alone"
        (template / path).write_text(without, encoding="utf-8")

    return take


def add(name: str, path: str) -> Callable[[Path], None]:
    """Puts a file of `tests/house/` into the template."""

    def take(template: Path) -> None:
        (template / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(HOUSE / name, template / path)

    return take


def edit(path: str, *pairs: tuple[str, str]) -> Callable[[Path], None]:
    def take(template: Path) -> None:
        for old, new in pairs:
            replace(template / path, old, new)

    return take


def row(prompt: str) -> str:
    """Where the template's README has the choices of a prompt."""
    return choices.line_of(TEMPLATE / "README.md", f"| `{prompt}` |")


def before(text: str, added: str) -> tuple[str, str]:
    return text, f"{added}{text}"


def after(text: str, added: str) -> tuple[str, str]:
    return text, f"{text}{added}"


def all_of(*takes: Callable[[Path], None]) -> Callable[[Path], None]:
    def take(template: Path) -> None:
        for each in takes:
            each(template)

    return take


GRAPHITE = [
    Step(
        'cookiecutter.json: add a label for "graphite" to "metrics" in "__prompts__"',
        label("metrics", "graphite", "Graphite: sent to Carbon over TCP"),
    ),
    Step(
        f"{CHASSIS}/metrics_graphite.py: write the module of metrics=graphite",
        add("metrics_graphite.py", f"{SOURCE}/{CHASSIS}/metrics_graphite.py"),
    ),
    Step(
        f"{CHASSIS}/settings/metrics_graphite.py: add graphite_host, which {CHASSIS}/"
        "metrics_graphite.py reads",
        add("settings_graphite.py", f"{SOURCE}/{CHASSIS}/settings/metrics_graphite.py"),
    ),
    Step(
        f"{CHASSIS}/settings/__init__.py: import the settings of metrics and make them a base of "
        "Settings, under a condition that holds with metrics=graphite",
        edit(
            f"{SOURCE}/{CHASSIS}/settings/__init__.py",
            *2 * [('metrics == "statsd"', 'metrics in ("statsd", "graphite")')],
        ),
    ),
    Step(
        "tests/chassis/test_metrics_graphite.py: write the tests of metrics=graphite",
        add("tests_of_graphite.py", f"{SOURCE}/tests/chassis/test_metrics_graphite.py"),
    ),
    Step(
        "docs/metrics_graphite.md: write the page of metrics=graphite",
        add("graphite.md", f"{SOURCE}/docs/metrics_graphite.md"),
    ),
    Step(
        "docs/settings.md: add a row for GRAPHITE_HOST if metrics=graphite",
        edit(
            f"{SOURCE}/docs/settings.md",
            before(
                '# {% if cookiecutter.metrics == "statsd" %}\n',
                '# {% if cookiecutter.metrics == "graphite" %}\n'
                "| `GRAPHITE_HOST` |  | Where Graphite is; without it, no metrics are sent. |\n"
                "| `GRAPHITE_PORT` | `2003` | Graphite's TCP port for lines of plain text. |\n"
                "# {% endif %}\n",
            ),
        ),
    ),
    Step(
        'tests/test_render.py: add a row ("metrics", "graphite") to WORDS, with what must not '
        "stand in a project without it",
        edit(
            "tests/test_render.py",
            # What StatsD's daemon may pass things on to has this name, too.
            after("WORDS = {\n", '    ("metrics", "graphite"): r"graphite(?! here)",\n'),
        ),
    ),
    Step(
        f"{row('metrics')}: add `graphite` to the row of metrics",
        edit("README.md", after("| `metrics` | ", "`graphite`, ")),
    ),
    Step(
        "CHANGELOG.md: say what a service gets with metrics=graphite",
        edit("CHANGELOG.md", before("- `metrics`: ", "- `metrics`: Graphite.\n")),
    ),
    Step(
        "compose.yaml: set GRAPHITE_HOST, and add a server for the local stack, with "
        "metrics=graphite",
        edit(
            f"{SOURCE}/compose.yaml",
            after(
                "    environment:\n",
                '      # {% if cookiecutter.metrics == "graphite" %}\n'
                "      GRAPHITE_HOST: graphite\n"
                "      # {% endif %}\n",
            ),
            before(
                '  # {% if cookiecutter.metrics == "prometheus" %}\n\n  prometheus:',
                '  # {% if cookiecutter.metrics == "graphite" %}\n\n'
                "  graphite:\n"
                "    <<: *confined\n"
                "    image: ghcr.io/go-graphite/go-carbon:0.18.0\n"
                "  # {% endif %}\n",
            ),
        ),
    ),
    Step(
        "deploy/kubernetes/overlays/production/settings.env: set GRAPHITE_HOST with "
        "metrics=graphite",
        edit(
            f"{SOURCE}/deploy/kubernetes/overlays/production/settings.env",
            before(
                "ENVIRONMENT=production\n",
                '# {% if cookiecutter.metrics == "graphite" %}\n'
                "GRAPHITE_HOST=graphite.monitoring\n"
                "# {% endif %}\n",
            ),
        ),
    ),
    Step(
        "deploy/kubernetes/base/networkpolicy.yaml: let the pods connect to the backend of "
        "metrics=graphite",
        all_of(
            edit(
                f"{SOURCE}/deploy/kubernetes/base/networkpolicy.yaml",
                before(
                    '    # {% if cookiecutter.metrics == "statsd" %}\n',
                    '    # {% if cookiecutter.metrics == "graphite" %}\n'
                    "    # Carbon.\n"
                    "    - to:\n"
                    "        - namespaceSelector:\n"
                    "            matchLabels:\n"
                    "              kubernetes.io/metadata.name: monitoring\n"
                    "      ports:\n"
                    "        - protocol: TCP\n"
                    "          port: 2003\n"
                    "    # {% endif %}\n",
                ),
            ),
            edit(
                "tests/test_kubernetes.py",
                before(
                    '    if deployed.answers["metrics"] == "statsd":\n',
                    '    if deployed.answers["metrics"] == "graphite":\n'
                    '        expected.add(("monitoring", "TCP", 2003))\n',
                ),
            ),
        ),
    ),
    Step(
        ".ci/backends/graphite.sh: install a real server, for metrics=graphite",
        add("graphite.sh", ".ci/backends/graphite.sh"),
    ),
    Step(
        "tests/backends/graphite.py: start that server, for metrics=graphite",
        add("backend_graphite.py", "tests/backends/graphite.py"),
    ),
    Step(
        "tests/test_graphite.py: read back from it what has arrived, for metrics=graphite",
        add("read_back_graphite.py", "tests/test_graphite.py"),
    ),
]

WITHOUT_A_LICENSE = [
    Step(
        f"{row('license')}: remove `BSD-3-Clause`, which license does not offer",
        edit("README.md", ("`Apache-2.0`, `BSD-3-Clause`", "`Apache-2.0`")),
    ),
    Step(
        'cookiecutter.json:@: remove the label of "BSD-3-Clause", which license does not offer',
        unlabel("license", "BSD-3-Clause"),
    ),
    Step(
        f"{SOURCE}/LICENSE:@: license does not offer BSD-3-Clause; remove it from the condition, "
        "and what is for it alone",
        drop_condition(f"{SOURCE}/LICENSE", "license", "BSD-3-Clause"),
    ),
]

# What to do with each file that speaks of New Relic, but for the row of its words.
WITHOUT_NEW_RELIC = {
    "cookiecutter.json": unlabel("error_tracking", "newrelic"),
    "README.md": drop_text(
        "README.md",
        r".*presets/new-relic\.yaml.*\n",
        r", `newrelic`",
        # What is left, a person would word anew.
        r"New Relic(?:'s \w+)?",
    ),
    "hooks/pre_gen_project.py": edit("hooks/pre_gen_project.py", ('"newrelic ', '"')),
    "presets/new-relic.yaml": drop("presets/new-relic.yaml"),
    "docs/architecture.svg": drop_text("docs/architecture.svg", r"New Relic"),
    "benchmarks/README.md": drop_text(
        "benchmarks/README.md",
        r"newrelic, ",
        r"; New Relic no license key",
        r"\| newrelic \|.*\n",
    ),
    "benchmarks/variants.py": drop_text("benchmarks/variants.py", r".*newrelic.*\n"),
    "benchmarks/faults.py": all_of(
        drop_text(
            "benchmarks/faults.py",
            r".*import newrelic\n|    \"newrelic\": .*\n",
            # A collector instead of an address, and what starts that collector.
            r"        if .*newrelic(?s:.*?)        else:\n",
            r"@contextmanager\ndef _newrelic(?s:.*?)yield newrelic.*\n",
        ),
        edit(
            "benchmarks/faults.py",
            ("            host, port =", "        host, port ="),
            ("            address =", "        address ="),
        ),
    ),
    "tests/test_benchmarks.py": edit(
        "tests/test_benchmarks.py",
        (', ("newrelic", ["fails"]))', ",)"),
        (', "newrelic"]', "]"),
        ('NotInstalled("newrelic")', 'NotInstalled("wrk")'),
    ),
    "tests/test_container.py": edit(
        "tests/test_container.py", ('error_tracking="newrelic"', 'error_tracking="none"')
    ),
    # Its row goes last.
    "tests/test_render.py": drop_text("tests/test_render.py", r" New Relic has .*"),
    "tests/test_kubernetes.py": edit(
        "tests/test_kubernetes.py", ('in ("sentry", "newrelic")', '== "sentry"')
    ),
    # That forks can be made, this one has shown.
    "tests/test_house.py": drop("tests/test_house.py", "tests/house"),
    f"{SOURCE}/deploy/kubernetes/base/networkpolicy.yaml": edit(
        f"{SOURCE}/deploy/kubernetes/base/networkpolicy.yaml",
        ('in ("sentry", "newrelic")', '== "sentry"'),
        ('{{ "Sentry" if cookiecutter.error_tracking == "sentry" else "New Relic" }}', "Sentry"),
    ),
    f"{SOURCE}/docs/deployment.md": edit(
        f"{SOURCE}/docs/deployment.md", (', "newrelic": "NEW_RELIC_LICENSE_KEY"', "")
    ),
    **{
        f"{SOURCE}/{path}": drop_condition(f"{SOURCE}/{path}", "error_tracking", "newrelic")
        for path in (
            "compose.yaml",
            "deploy/kubernetes/base/deployment.yaml",
            "docs/settings.md",
            "pyproject.toml",
        )
    },
    **{
        path: drop(path)
        for path in (
            ".ci/backends/newrelic.sh",
            "tests/backends/newrelic.py",
            "tests/backends/test_backends_selfcheck_newrelic.py",
            "tests/test_newrelic.py",
            f"{SOURCE}/{CHASSIS}/errors_newrelic.py",
            f"{SOURCE}/{CHASSIS}/settings/errors_newrelic.py",
            f"{SOURCE}/docs/errors_newrelic.md",
            f"{SOURCE}/tests/chassis/test_errors_newrelic.py",
        )
    },
}

LIMIT = "rate_limit=token_bucket"
RATE_LIMIT = [
    Step(
        'cookiecutter.json: add a label for "token_bucket" to "rate_limit" in "__prompts__"',
        all_of(
            label("rate_limit", "none", "None"),
            label("rate_limit", "token_bucket", "A token bucket: what exceeds it gets 429"),
        ),
    ),
    Step(
        "hooks/post_gen_project.py: add a line to PROMPTS, with the name that the modules of the "
        'prompt "rate_limit" begin with',
        edit(
            "hooks/post_gen_project.py",
            after('    "tracing": "tracing",\n', '    "rate_limit": "rate_limit",\n'),
        ),
    ),
    Step(
        f"{CHASSIS}/rate_limit_token_bucket.py: write the module of {LIMIT}",
        add("rate_limit_token_bucket.py", f"{SOURCE}/{CHASSIS}/rate_limit_token_bucket.py"),
    ),
    Step(
        f"{CHASSIS}/service.py: import rate_limit and add its Observer to `features`, under a "
        f"condition that holds with {LIMIT}",
        edit(
            f"{SOURCE}/{CHASSIS}/service.py",
            before(
                "from .settings import Settings\n",
                '# {% if cookiecutter.rate_limit != "none" %}\n'
                "from .rate_limit import RateLimit\n"
                "# {% endif %}\n",
            ),
            after(
                "        features: list[Observer] = [\n",
                '            # {% if cookiecutter.rate_limit != "none" %}\n'
                "            RateLimit(settings),\n"
                "            # {% endif %}\n",
            ),
        ),
    ),
    Step(
        f"{CHASSIS}/settings/rate_limit_token_bucket.py: add rate_limit_burst, which {CHASSIS}/"
        "rate_limit_token_bucket.py reads",
        add("settings_token_bucket.py", f"{SOURCE}/{CHASSIS}/settings/rate_limit_token_bucket.py"),
    ),
    Step(
        f"{CHASSIS}/settings/__init__.py: import the settings of rate_limit and make them a base "
        f"of Settings, under a condition that holds with {LIMIT}",
        edit(
            f"{SOURCE}/{CHASSIS}/settings/__init__.py",
            before(
                "from .server import ServerSettings\n",
                '# {% if cookiecutter.rate_limit != "none" %}\n'
                "from .rate_limit import RateLimitSettings\n"
                "# {% endif %}\n",
            ),
            # Its rows in docs/settings.md stand behind those of tracing, too.
            before(
                '    # {% if cookiecutter.tracing in ("jaeger", "zipkin") %}\n'
                "    TracingSettings,\n",
                '    # {% if cookiecutter.rate_limit != "none" %}\n'
                "    RateLimitSettings,\n"
                "    # {% endif %}\n",
            ),
        ),
    ),
    Step(
        f"tests/chassis/test_rate_limit_token_bucket.py: write the tests of {LIMIT}",
        add("tests_of_token_bucket.py", f"{SOURCE}/tests/chassis/test_rate_limit_token_bucket.py"),
    ),
    Step(
        f"docs/rate_limit_token_bucket.md: write the page of {LIMIT}",
        add("token_bucket.md", f"{SOURCE}/docs/rate_limit_token_bucket.md"),
    ),
    Step(
        f"docs/README.md: add a row for rate_limit.md, the page of {LIMIT}",
        edit(
            f"{SOURCE}/docs/README.md",
            before(
                ') if cookiecutter[prompt] != "none" %}',
                '    ("rate_limit", "rate_limit", "what is refused, and when"),\n',
            ),
        ),
    ),
    Step(
        f"docs/settings.md: add a row for RATE_LIMIT_BURST if {LIMIT}",
        edit(
            f"{SOURCE}/docs/settings.md",
            before(
                '# {% if cookiecutter.error_tracking == "sentry" %}\n| ',
                '# {% if cookiecutter.rate_limit == "token_bucket" %}\n'
                "| `RATE_LIMIT_PER_SECOND` |  | Requests a second that are let in; without it, "
                "there is no limit. |\n"
                "| `RATE_LIMIT_BURST` | `100` | Requests that are let in at once, after a time "
                "without any. |\n"
                "# {% endif %}\n",
            ),
        ),
    ),
    Step(
        'tests/test_render.py: add a row ("rate_limit", "token_bucket") to WORDS, with what must '
        "not stand in a project without it",
        edit(
            "tests/test_render.py",
            after(
                "WORDS = {\n", '    ("rate_limit", "token_bucket"): r"rate.?limit|token.bucket",\n'
            ),
        ),
    ),
    Step(
        "README.md: add a row for rate_limit to the table of prompts",
        edit(
            "README.md", before("| `deployment` |", "| `rate_limit` | `none`, `token_bucket` |\n")
        ),
    ),
    Step(
        f"CHANGELOG.md: say what a service gets with {LIMIT}",
        edit("CHANGELOG.md", before("- `metrics`: ", "- `rate_limit`: a token bucket.\n")),
    ),
    Step(
        "presets/minimal.yaml: answer rate_limit with one of none, token_bucket",
        lambda template: [
            preset.write_text(f"{preset.read_text()}  rate_limit: none\n")
            for preset in template.glob("presets/*.yaml")
        ],
    ),
]


def test_new_relic_is_removed_by_what_the_tests_say(copy: Path) -> None:
    offer(copy, "error_tracking", lambda values: values.remove("newrelic"))
    # Some name a file within the project's folder.
    reported = {re.split(r":\d", each)[0] for each in problems(copy)}
    assert {each for each in reported if (copy / each).exists()} == WITHOUT_NEW_RELIC.keys()
    for take in WITHOUT_NEW_RELIC.values():
        take(copy)
    [last] = problems(copy)
    assert re.fullmatch(r"tests/test_render.py:\d+: remove the row, .*", last)
    drop_words("error_tracking", "newrelic")(copy)
    assert problems(copy) == []


def test_license_is_removed_by_what_the_tests_say(copy: Path) -> None:
    offer(copy, "license", lambda values: values.remove("BSD-3-Clause"))
    build(copy, WITHOUT_A_LICENSE)


@pytest.mark.full
def test_graphite_is_built_by_what_the_tests_say(copy: Path) -> None:
    offer(copy, "metrics", lambda values: values.insert(-1, "graphite"))
    build(copy, GRAPHITE)
    ran(copy, "tests.check", f"{SOURCE}/{CHASSIS}/metrics_graphite.py", f"{SOURCE}/compose.yaml")


@pytest.mark.full
def test_rate_limit_is_built_by_what_the_tests_say(copy: Path) -> None:
    offer(copy, "rate_limit", lambda values: values.extend(["none", "token_bucket"]))
    build(copy, RATE_LIMIT)
    module = f"{SOURCE}/{CHASSIS}/rate_limit_token_bucket.py"
    ran(copy, "tests.check", module, f"{SOURCE}/{CHASSIS}/service.py")


def build(template: Path, steps: list[Step]) -> None:
    """Takes one step after the other; each message is there until its step is taken."""
    for step in steps:
        found = problems(template)
        said = [re.sub(r"^(cookiecutter.json|\S+/LICENSE):\d+", r"\1:@", each) for each in found]
        assert step.message in said, "\n".join([step.message, "is not among", *said])
        step.take(template)
    found = problems(template)
    assert not found, "\n".join(found)


@pytest.mark.full
@pytest.mark.longest
def test_fork_passes_its_tests(copy: Path) -> None:
    """Its command is `.venv/bin/pytest`, as here: this runs the part of it that is another there.

    These tests read all of the fork, or render what was added to it; those with Sentry render
    nothing new. The rest generates from answers of its own, the same here and there, but for the
    generated suites: four of those with Graphite and the rate limit run, two with structured logs.
    """
    make_fork(copy)
    files = [f"tests/test_{each}.py" for each in READING]
    suites = "graphite and token_bucket and sentry and (jaeger or page and not probes)"
    for argv in (
        [*files, "-k", "not sentry"],
        ["tests/test_render.py", "--full", "-k", "not sentry"],
        ["tests/test_generated_suites.py", "--full", "-k", suites],
    ):
        ran(copy, "pytest", "--quiet", "-n0", "-pno:cacheprovider", *argv)


def make_fork(template: Path) -> None:
    """Other defaults, a license and a backend less, Graphite and a rate limit more."""
    offer(template, "error_tracking", lambda values: values.remove("newrelic"))
    offer(template, "license", lambda values: values.remove("BSD-3-Clause"))
    # Another default wherever there is a choice.
    for prompt in combinations.choices():
        offer(template, prompt, lambda values: values.insert(0, values.pop(1)))
    path = template / "cookiecutter.json"
    content = json.loads(path.read_text(encoding="utf-8")) | DEFAULTS
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    offer(template, "metrics", lambda values: values.insert(1, "graphite"))
    offer(template, "rate_limit", lambda values: values.extend(["none", "token_bucket"]))
    for take in (
        *WITHOUT_NEW_RELIC.values(),
        drop_words("error_tracking", "newrelic"),
        *(step.take for step in (*WITHOUT_A_LICENSE, *GRAPHITE, *RATE_LIMIT)),
        edit(f"{SOURCE}/Dockerfile", ("FROM python:", "FROM registry.acme.example/python:")),
    ):
        take(template)
    minimal = (template / "presets" / "minimal.yaml").read_text(encoding="utf-8")
    company = minimal.replace("default_context:\n", "default_context:\n  author_name: Acme\n")
    (template / "presets" / "acme.yaml").write_text(company, encoding="utf-8")
    # What a person's editor does.
    for command in (["check", "--fix"], ["format"]):
        subprocess.run([find_ruff_bin(), *command, "--quiet", "."], cwd=template, check=True)
