"""What a person may type: it arrives unchanged in every file, or is refused with a way out."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import chdir, redirect_stderr
from io import BytesIO, TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..backends import RUN_SECONDS
from . import combinations
from .conftest import Generate
from .project import REFERENCE, SOURCE, TEMPLATE, git, render
from .test_render import files, ruff, syntax

NASTY = [
    'Bob "X" Smith, Inc.',
    "O'Brien",
    "\"\"\" + ''' + ```",
    "C:\\temp\\new",
    "ends in a backslash\\",
    "{ } {% raw %} %} }} %s ${HOME} $(id) `id` !r:>10 =1+1",
    "🎉 \U0001d4b3 e\u0301",
    "שלום \u202e\u0645\u0631\u062d\u0628\u0627",
    "<b>&amp;</b> # [x](y) | * _ <!--",
    "x" * 300,
]
TAGS = ("{{", "{#", "# {%")
SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=300)
lines = texts.filter(lambda text: text.strip() == text != "" and not any(map(text.count, TAGS)))
emails = st.from_regex(
    r"[a-z.'+!#$%&*/=?^`|~-]{1,20}@[a-z0-9]{1,9}(\.[a-z0-9]{2,9})?", fullmatch=True
)
licences = st.sampled_from(combinations.choices()["license"])
slugs = st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,9}){0,2}", fullmatch=True)
anything = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("{}#% \n\x1b\\\"'@-")))

slow = settings(
    max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answers")


@slow
@given(name=lines, description=lines, author=lines, email=emails, licence=licences)
def test_text_arrives_unchanged(
    workplace: Path, name: str, description: str, author: str, email: str, licence: str
) -> None:
    answers = {
        "project_name": name,
        "project_slug": "my-service",
        "description": description,
        "author_name": author,
        "author_email": email,
        "license": licence,
    }
    project = made(workplace, answers)
    assert [problem for path in files(project) for problem in syntax(path, project)] == []
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    metadata = tomllib.loads(text)["project"]
    assert metadata["description"] == description
    assert metadata["authors"] == [{"name": author, "email": email}]
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {name}\n\n{description}\n")
    if licence != "Apache-2.0":  # Apache's is the same for everybody
        assert f"Copyright (c) {author}" in (project / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [NASTY[0], *(pytest.param(text, marks=pytest.mark.full) for text in NASTY[1:])],
    ids=lambda text: text[:9].encode("ascii", "replace"),
)
def test_metadata_is_what_was_answered(generate: Generate, tmp_path: Path, text: str) -> None:
    project = generate(project_name=text, project_slug="a-b", description=text, author_name=text)
    project.uv("build", "--quiet", "--wheel", f"--out-dir={tmp_path}")
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [path] = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = archive.read(path).decode()
    fields = dict(line.split(": ", 1) for line in metadata.split("\n\n")[0].splitlines())
    assert fields["Name"] == "a-b"
    assert fields["Summary"] == text
    assert fields["Author-email"] == f"{text} <you@example.com>"
    assert f"# {text}\n\n{text}\n" in metadata


@pytest.mark.full
@slow
@given(slug=st.one_of(slugs, st.just("a"), st.just("a-" * 15 + "bb")))
def test_slug_gives_a_tidy_project_or_another_slug(workplace: Path, slug: str) -> None:
    if message := refusal({"project_slug": slug}):
        assert f'project_slug: "{slug}" ' in message
        [slug] = re.findall(r"Try: (.*)", message)
    project = made(workplace, {"project_slug": slug})
    assert project.name == slug
    assert (project / "src" / slug.replace("-", "_") / "app.py").is_file()
    # Names of any length leave imports in order and lines within bounds.
    assert list(ruff(project)) == []


NO_SLUGS = """class json telnetlib lib2to3 profiling sitecustomize tornado prometheus-client
    opentelemetry con com1 tests default kube-system my_service a/b .. a\\b -a a--b 3d é
    \uff41""".split()


@pytest.mark.parametrize("slug", ["", "My Service", "a\n", "a" * 33, *NO_SLUGS], ids=repr)
def test_slug_is_refused_for_one_that_is_not(slug: str) -> None:
    message = refusal({"project_slug": slug})
    assert f"project_slug: {json.dumps(slug, ensure_ascii=False)} " in message
    [better] = re.findall(r"Try: (.*)", message)
    assert refusal({"project_slug": better}) == ""


@pytest.mark.full
def test_no_slug_is_the_name_of_what_is_installed(generate: Generate) -> None:
    """The names of each dependency's distribution and modules, in every combination."""
    for answers in combinations.each_choice():
        project = generate(**answers)
        project.sync()
        pyproject = tomllib.loads((project.path / "pyproject.toml").read_text(encoding="utf-8"))
        declared = [*pyproject["project"]["dependencies"], *pyproject["dependency-groups"]["dev"]]
        names = {re.split(r"[\[<>=!~; ]", each)[0] for each in declared}
        code = "import importlib.metadata as m, json; print(json.dumps(m.packages_distributions()))"
        for module, distributions in json.loads(project.run(project.python, "-c", code)).items():
            if names & set(distributions) and not module.startswith("_"):
                names.add(module.lower().replace("_", "-"))
        for name in names:
            assert refusal({"project_slug": name}), name
        programs = {path.name for path in project.python.parent.iterdir()}
        ignored = (project.path / ".gitignore").read_text(encoding="utf-8").split()
        for name in programs | {each.rstrip("/") for each in ignored}:
            if SLUG.fullmatch(name) and name != project.slug:
                assert refusal({"project_slug": name}), name


FIELDS = ("project_name", "project_slug", "description", "author_name", "author_email")


@given(st.fixed_dictionaries(dict.fromkeys(FIELDS, anything)))
@settings(deadline=None, max_examples=200)
def test_suggestions_are_accepted(answers: dict[str, str]) -> None:
    message = refusal(answers)
    if not message:
        return
    command = shlex.split(message.rstrip().rpartition("\n\n  ")[2])
    # Before that is how to start it, which depends on this environment.
    command = command[command.index("--no-input") - 1 :]
    assert Path(command[0]).name == "cookiecutter"
    assert command[1:5] == ["--no-input", "--output-dir", "/out", "/template"]
    again = dict(each.split("=", 1) for each in command[5:])
    assert again.keys() == {*answers, "license", "chassis"}
    assert refusal(again) == ""
    for field, answer in answers.items():
        if f"\n  {field}: " not in message:
            assert again[field] == answer


def test_all_problems_are_reported_at_once_with_the_command_to_run_again(tmp_path: Path) -> None:
    answers = {
        "project_name": "Two\nlines",
        "project_slug": "Class",
        "author_email": "nobody",
        "description": 'It\'s "fine"',
        "metrics": "none",
    }
    given = [f"{key}={value}" for key, value in answers.items()]
    message = cookiecutter("--no-input", *given, home=tmp_path, status=1).partition("Traceback")[0]
    assert message.startswith("Nothing was generated, because of these answers:\n")
    for field in ("project_name", "project_slug", "author_email"):
        assert f"\n  {field}: {json.dumps(answers[field])} " in message
    assert "\n  description: " not in message
    assert list(tmp_path.glob("out/*")) == []

    as_shown(message, home=tmp_path)
    project = tmp_path / "out" / "class-service"
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["description"] == answers["description"]
    assert not (project / "docs" / "metrics.md").exists()


def test_answer_in_utf_8_is_understood_where_the_locale_is_not(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    argv = ("--no-input", "author_name=Zoë")
    message = cookiecutter(*argv, home=tmp_path, environ=ascii_only, status=1)
    assert (
        '  author_name: "Zoë" was typed in UTF-8, but the locale is not UTF-8: set PYTHONUTF8=1.\n'
        "      Try: Zoë\n"
    ) in message
    assert command_of(message).startswith("PYTHONUTF8=1 ")
    as_shown(message, home=tmp_path, environ=ascii_only)
    [project] = (tmp_path / "out").iterdir()
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["authors"][0]["name"] == "Zoë"


def test_enter_alone_gives_a_good_service(tmp_path: Path) -> None:
    output = cookiecutter(home=tmp_path, typed="\n" * 20)
    [project] = (tmp_path / "out").iterdir()
    assert f"Made the service {project.name} in {project}\n" in output
    assert list(ruff(project)) == []


def test_slug_that_is_proposed_begins_with_a_letter(tmp_path: Path) -> None:
    cookiecutter("--no-input", "project_name=3D Printer!", home=tmp_path)
    assert [project.name for project in (tmp_path / "out").iterdir()] == ["service-3d-printer"]


def test_next_steps_are_commands_that_work(tmp_path: Path) -> None:
    """Here uv is in the virtual environment of cookiecutter, and nowhere on the PATH."""
    output = cookiecutter("--no-input", home=tmp_path, environ={"PATH": "/usr/bin:/bin"})
    uv = Path(sys.executable).with_name("uv")
    assert output.endswith(
        f"Run it:   cd {tmp_path}/out/my-service && {uv} run my-service\n"
        f"Test it:  {uv} run pytest\n"
        "Keep it:  git init && git add --all && git commit\n"
    )
    on_path = {"PATH": f"{uv.parent}:/usr/bin:/bin"}
    git(tmp_path, "init", "--quiet")
    output = cookiecutter("--no-input", "project_slug=other", home=tmp_path, environ=on_path)
    where = tmp_path / "out" / "other"
    assert output.endswith(f"Run it:   cd {where} && uv run other\nTest it:  uv run pytest\n")


def test_command_after_uvx_is_one_of_uvx(tmp_path: Path) -> None:
    """What it runs is on the PATH until it ends."""
    uv = Path(sys.executable).with_name("uv")
    for path, shown in (("", f"{uv} tool run"), (f"{uv.parent}:", "uvx")):
        environ = {"UV": str(uv), "PATH": f"{path}/usr/bin:/bin"}
        argv = ("--no-input", "project_slug=json")
        message = cookiecutter(*argv, home=tmp_path, environ=environ, status=1)
        assert f"\n  {shown} cookiecutter --no-input " in message


# cookiecutter takes a number and a list as text.
@pytest.mark.parametrize(("value", "status"), [("", 1), ("yes", 1), ("3", 0), ("[a, b]", 0)])
def test_value_of_a_config_file_that_is_no_text_is_rejected(
    tmp_path: Path, value: str, status: int
) -> None:
    config = tmp_path / "config.yaml"
    names = ("project_name", "description", "author_name")
    config.write_text("\n  ".join(["default_context:", *(f"{name}: {value}" for name in names)]))
    output = cookiecutter("--no-input", f"--config-file={config}", home=tmp_path, status=status)
    if status:
        message = output.partition("Traceback")[0]
        assert [name for name in names if f"\n  {name}: " in message] == [*names]
        assert "is no text: in a file for --config-file, put it in quotes" in message
        as_shown(message, home=tmp_path)
    assert len(list(tmp_path.glob("out/*"))) == 1


@pytest.mark.parametrize(
    ("edited", "field"),
    [
        ({"project_slug": "orders"}, "__package"),
        ({"license": "Apache-2.0"}, "__license"),
        ({"metrics": "prometheus"}, "__has_features"),
        ({"tracing": "zipkin", "__has_features": "zipkin"}, "__extras"),
        ({"console": "page", "__has_features": "page"}, "__admin"),
        ({"metrics": "graphite", "__has_features": "graphite"}, "metrics"),
        ({"console": None}, "console"),
        ({"license": ["MIT"]}, "license"),
    ],
)
def test_replay_file_that_was_edited_by_half_is_rejected(
    tmp_path: Path, edited: dict[str, object], field: str
) -> None:
    features = ("health", "logging", "metrics", "error_tracking", "tracing", "console")
    cookiecutter("--no-input", *(f"{name}=none" for name in features), home=tmp_path)
    [made] = (tmp_path / ".cookiecutter_replay").iterdir()
    replay = json.loads(made.read_text())
    replay["cookiecutter"] |= edited
    again = tmp_path / "again.json"
    again.write_text(json.dumps(replay))
    shutil.rmtree(tmp_path / "out")
    # A path that is relative is relative to where the command was started.
    (tmp_path / "template").symlink_to(TEMPLATE)
    here = {"PWD": str(tmp_path)}
    argv = (f"--replay-file={again}",)
    message = cookiecutter(*argv, home=tmp_path, environ=here, template="template", status=1)
    assert f"\n  {field}: " in message
    as_shown(message.partition("Traceback")[0], home=tmp_path)
    assert len(list((tmp_path / "out").iterdir())) == 1


ADDRESSES = [5, ["a"], 'https://host/a"b', "https://host/a\n", "C:\\wheels\\a", "no address"]


@pytest.mark.parametrize("value", ADDRESSES, ids=repr)
@pytest.mark.parametrize("name", ["__chassis_source", "__registry", "__runbook"])
def test_address_that_would_break_a_file_is_rejected(name: str, value: Any) -> None:
    message = refusal({name: value})
    assert f"  {name}: {json.dumps(value)} is no address: " in message


@pytest.mark.parametrize("value", [">=0.2", "host/a.whl"])
def test_address_of_a_wheel_has_a_scheme(value: str) -> None:
    message = refusal({"__chassis_source": value})
    assert f'  __chassis_source: "{value}" is no address: it has no scheme' in message


def test_command_to_run_again_has_the_options_of_the_first_run() -> None:
    options = {"_template": "https://host/acme/templates.git", "_checkout": "v1"}
    where = {"_repo_dir": "/home/me/.cookiecutters/templates/services/tornado"}
    message = refusal({"project_slug": "json", **options, **where})
    assert "--output-dir /out --checkout v1 --directory services/tornado " in message
    assert "--directory" not in refusal({"project_slug": "json", **options})


def test_command_to_run_again_has_an_address_that_the_template_has_not(tmp_path: Path) -> None:
    given = ("__chassis_source=none", "__registry=registry.example.com/team")
    message = cookiecutter("--no-input", "project_slug=json", *given, home=tmp_path, status=1)
    assert re.findall(r" (__\w+=\S*)", command_of(message)) == [given[1]]
    as_shown(message, home=tmp_path)
    release = tmp_path / "out" / "json-service" / ".github" / "workflows" / "release.yml"
    assert given[1].partition("=")[2] in release.read_text(encoding="utf-8")


def test_command_of_cruft_to_run_again_has_the_options_of_the_first_run(
    tmp_path: Path, repository: Path
) -> None:
    """Or the reader is reminded of those that hooks are not told of."""
    cruft = str(Path(sys.executable).with_name("cruft"))
    answers = {"project_slug": "json", "__runbook": "https://wiki/x/"}
    argv = [cruft, "create", "--no-input", "--output-dir", "out dir"]
    argv += ["--extra-context", json.dumps(answers), str(repository)]
    message = run(argv, tmp_path, status=1)
    assert "your other answers, and with --checkout and --directory if you gave them:" in message
    as_shown(message, home=tmp_path)
    made = json.loads((tmp_path / "out dir" / "json-service" / ".cruft.json").read_text())
    assert made["context"]["cookiecutter"]["__runbook"] == "https://wiki/x/"


def test_read_only_template_gives_files_that_can_be_changed(tmp_path: Path, template: Path) -> None:
    for path in [template, *template.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        cookiecutter("--no-input", home=tmp_path, template=template)
    finally:
        for path in [template, *template.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o700)
    made = list((tmp_path / "out").rglob("*"))
    assert made
    assert [path for path in made if not path.stat().st_mode & 0o200] == []


@pytest.mark.parametrize("output", [">/dev/full", ">&-", ">&- 2>&-"])
def test_output_that_cannot_be_written_undoes_nothing(tmp_path: Path, output: str) -> None:
    program = Path(sys.executable).with_name("cookiecutter")
    run(["/bin/sh", "-c", f"{program} --no-input {TEMPLATE} {output} || true"], tmp_path)
    assert (tmp_path / "my-service" / "README.md").exists()


def test_what_lies_in_the_template_s_folder_is_not_generated(
    tmp_path: Path, template: Path
) -> None:
    left = """.env uv.lock .venv/bin/x src/a.py~ .idea/x.xml .ruff_cache/0.17/1 docs/a.bak
        src/#a.py# .tox/x .direnv/x node_modules/x.js src/x.egg-info/PKG-INFO htmlcov/x.html venv/x
        ._README.md .mypy_cache/CACHEDIR.TAG tests/.pytest_cache/README.md
        tests/__pycache__/test_handlers.cpython-313.pyc""".split()
    for name in left:
        path = template / SOURCE.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{{ not a template }} \x8e")
    cookiecutter("--no-input", home=tmp_path, template=template)
    assert [each for each in left if (tmp_path / "out" / "my-service" / each).exists()] == []


def test_typed_answers_are_not_executed(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    call = f"__import__('pathlib').Path('{proof}').touch()"
    typed = [
        f'"; {call} #',
        "typed-service",
        f'""" + {call} + """',
        f"'''); {call} #",
        "o'brien@example.com",
    ]
    cookiecutter(home=tmp_path, typed="\n".join(typed) + "\n" * 20)
    project = tmp_path / "out" / "typed-service"
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    metadata = tomllib.loads(text)["project"]
    assert metadata["description"] == typed[2]
    assert metadata["authors"] == [{"name": typed[3], "email": typed[4]}]
    assert f"# {typed[0]}\n" in (project / "README.md").read_text(encoding="utf-8")

    template = "{{ cycler.__init__.__globals__.os.mkdir('" + str(proof) + "') }}"
    typed_too = f"{template}\nother-service" + "\n" * 20
    assert "  project_name: " in cookiecutter(home=tmp_path, typed=typed_too, status=1)
    assert not proof.exists()


def made(workplace: Path, answers: Mapping[str, str]) -> Path:
    number = len(list(workplace.iterdir()))
    return render(workplace / str(number), workplace / "home", answers)


def refusal(answers: Mapping[str, Any]) -> str:
    """What the hook says to these answers; empty where it accepts them. Others are right."""
    right = {key: REFERENCE[key] for key in (*FIELDS, "license", "chassis")}
    context = {"_template": "/template", "_output_dir": "/out", **right, **answers}
    source = (TEMPLATE / "hooks" / "pre_gen_project.py").read_text(encoding="utf-8")
    options = json.loads((TEMPLATE / "cookiecutter.json").read_text())["_jinja2_env_vars"]
    rendered = jinja2.Environment(**options).from_string(source).render(cookiecutter=context)
    errors = TextIOWrapper(BytesIO(), encoding="utf-8", errors="backslashreplace")
    with redirect_stderr(errors):
        try:
            with TemporaryDirectory() as project, chdir(project):
                exec(compile(rendered, "pre_gen_project.py", "exec"), {})
        except SystemExit as end:
            errors.flush()
            return errors.buffer.getvalue().decode() if end.code == 1 else str(end)
    return ""


def cookiecutter(
    *argv: str,
    home: Path,
    typed: str = "",
    environ: Mapping[str, str] | None = None,
    template: str | Path = TEMPLATE,
    status: int = 0,
) -> str:
    """What the command prints, run with the template and a directory for its output."""
    (home / "out").mkdir(exist_ok=True)
    program = Path(sys.executable).with_name("cookiecutter")
    argv = (str(program), "--output-dir", str(home / "out"), str(template), *argv)
    return run(argv, home, environ, typed, status)


def command_of(message: str) -> str:
    """The one command that a message shows."""
    [command] = re.findall(r"^  (.*\b(?:cookiecutter|cruft) .*)", message, re.MULTILINE)
    return str(command)


def as_shown(message: str, *, home: Path, environ: Mapping[str, str] | None = None) -> str:
    """What the command that a message shows prints, run as a person would paste it."""
    return run(["/bin/sh", "-ec", command_of(message)], home, environ)


def run(
    argv: Sequence[str],
    home: Path,
    environ: Mapping[str, str] | None = None,
    typed: str = "",
    status: int = 0,
) -> str:
    # Nothing of the environment that the tests run in is on the PATH.
    own = {"PATH": "/usr/bin:/bin", "HOME": str(home), "NO_COLOR": "1"}
    done = subprocess.run(
        argv,
        cwd=home,
        env={**os.environ, **own, **(environ or {})},
        input=typed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout
