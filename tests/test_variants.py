"""The variants of a feature, which take each other's place."""

import ast

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
