"""The variants of a feature, which take each other's place."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

from .project import TEMPLATE

CHASSIS = TEMPLATE / "{{cookiecutter.project_slug}}/src/{{cookiecutter.__package}}/chassis"
STUB = "tracing_stub.py"
FULL = "tracing_jaeger_or_zipkin/__init__.py"
SPANS = "tracing_jaeger_or_zipkin/spans.py"


def definitions(path: str) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    """The functions, classes and methods of a module, such as `Span.ids`."""
    tree = ast.parse((CHASSIS / path).read_text(encoding="utf-8"))
    found: dict[str, ast.FunctionDef | ast.ClassDef] = {}
    for each in tree.body:
        if isinstance(each, ast.FunctionDef | ast.ClassDef):
            found[each.name] = each
        if isinstance(each, ast.ClassDef):
            methods = (method for method in each.body if isinstance(method, ast.FunctionDef))
            found |= {f"{each.name}.{method.name}": method for method in methods}
    return found


def heading(definition: ast.FunctionDef | ast.ClassDef) -> str:
    """Its first line, such as `class Client(SimpleAsyncHTTPClient):`."""
    definition.body = [ast.Pass()]
    return ast.unparse(definition).partition("\n")[0]


def test_variants_of_tracing_offer_the_same() -> None:
    stub, full = definitions(STUB), definitions(FULL)
    for name in ("Tracing", "Tracing.__init__", "Client", "current", "inject", "span"):
        assert heading(stub[name]) == heading(full[name])


def test_calls_of_the_stub_s_spans_are_valid_with_a_backend() -> None:
    full = definitions(SPANS)
    methods = {name: each for name, each in definitions(STUB).items() if name.startswith("Span.")}
    del methods["Span.__init__"]
    assert {"Span.set_attribute", "Span.record_exception"} <= set(methods)
    for name, method in methods.items():
        other = full[name]
        assert isinstance(method, ast.FunctionDef)
        assert isinstance(other, ast.FunctionDef)
        own = [each.arg for each in method.args.args]
        # A backend's may take more.
        assert own == [each.arg for each in other.args.args][: len(own)]


# A feature whose choices are called as the hook must not misread them.
LIMIT = {
    "rate_limit_bucket.py": {"bucket"},
    "rate_limit_token_bucket_2.py": {"token_bucket_2"},
    "rate_limit_first_or_last.py": {"first", "last", "first_or_last"},
}


@pytest.mark.parametrize("choice", ["bucket", "token_bucket_2", "first", "last", "first_or_last"])
def test_hook_keeps_the_variants_of_any_choice(tmp_path: Path, choice: str) -> None:
    chassis = tmp_path / "src" / "my_service" / "chassis"
    chassis.mkdir(parents=True)
    for name, choices in LIMIT.items():
        (chassis / name).write_text(" ".join(sorted(choices)))
    inner = chassis / "settings" / "rate_limit_bucket_or_token_bucket_2_or_first_or_last"
    inner.mkdir(parents=True)
    (inner / "kept.py").write_text("all")
    (inner / "of_bucket.py").write_text("bucket")
    (inner / "of_token_bucket_2.py").write_text("token_bucket_2")
    # Another prompt has this answer, too.
    done = kept(tmp_path, {"rate_limit": choice, "metrics": "bucket"})
    assert done.returncode == 0, done.stderr
    [module] = chassis.glob("*.py")
    assert module.name == "rate_limit.py"
    assert choice in module.read_text().split()
    settings = {
        path.name: path.read_text() for path in (chassis / "settings" / "rate_limit").iterdir()
    }
    expected = {"of.py": choice} if choice in ("bucket", "token_bucket_2") else {}
    assert settings == {"kept.py": "all", **expected}


def test_choice_without_a_module_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "src" / "my_service" / "chassis").mkdir(parents=True)
    done = kept(tmp_path, {"rate_limit": "token_bucket"})
    assert done.returncode == 1
    assert "rate_limit=token_bucket: the template has no chassis/rate_limit_token_bucket.py" in (
        done.stderr
    )


def kept(project: Path, answers: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Runs the hook in the project, with a feature `rate_limit`; all else is `none`."""
    source = (TEMPLATE / "hooks" / "post_gen_project.py").read_text(encoding="utf-8")
    first = "PROMPTS = {\n"
    assert source.count(first) == 1
    source = source.replace(
        first, f'{first}    "rate": "tracing",\n    "rate_limit": "rate_limit",\n'
    )
    context = {
        **dict.fromkeys(json.loads((TEMPLATE / "cookiecutter.json").read_text()), "none"),
        "project_slug": "my-service",
        "__package": "my_service",
        **answers,
    }
    if "metrics" in answers:
        (project / "src" / "my_service" / "chassis" / "metrics_bucket").mkdir()
    options = json.loads((TEMPLATE / "cookiecutter.json").read_text())["_jinja2_env_vars"]
    rendered = jinja2.Environment(**options).from_string(source).render(cookiecutter=context)
    return subprocess.run(
        [sys.executable, "-c", rendered], cwd=project, capture_output=True, text=True, check=False
    )
