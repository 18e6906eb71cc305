"""The names of Tornado, and one of prometheus_client, that the chassis uses although they are not
documented.

Its requirement of Tornado is bounded because of them. A release that drops one fails here, by name.
"""

import ast
import inspect
from pathlib import Path

import prometheus_client
import pytest
import tornado_chassis
from tornado import http1connection, httpserver, iostream, web, websocket

NAMES = {
    web: "_HandlerDelegate _stream_request_body _body_future",
    web.RequestHandler: (
        "_auto_finish _execute _finished _headers _reason _status_code _transforms "
        "_unimplemented_method _write_buffer"
    ),
    httpserver: "_CallableAdapter",
    httpserver.HTTPServer: "_connections",
    http1connection.HTTP1Connection: "_disconnect_on_finish _read_finished",
    iostream.BaseIOStream: (
        "_check_max_bytes _close_callback _read_max_bytes _total_write_done_index "
        "_total_write_index _read_buffer _read_regex _start_read"
    ),
    iostream.IOStream: "_write_buffer",
    websocket.WebSocketProtocol13: "_abort _decompressor _fragmented_message_buffer _read_bytes",
    prometheus_client.CollectorRegistry: "_collector_to_names",
}
EACH = [(owner, name) for owner, names in NAMES.items() for name in names.split()]
# Of the standard library and, tested by what they are used for, of other libraries.
OTHERS = (
    "_current_frames _exit _getframe _make _asdict _replace _run _context _collector_to_names "
    "_configuration_done"
)


@pytest.mark.parametrize(("owner", "name"), EACH, ids=lambda each: getattr(each, "__name__", each))
def test_name_is_there(owner: object, name: str) -> None:
    text = inspect.getsource(owner)  # type: ignore[arg-type]
    bases = getattr(owner, "__mro__", (owner,))[1:-1]
    text += "".join(inspect.getsource(base) for base in bases)
    assert hasattr(owner, name) or f".{name}" in text


def test_these_are_all() -> None:
    used, own = set(), set()
    for path in Path(tornado_chassis.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                is_of_itself = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                if not node.attr.startswith("__") and not is_of_itself:
                    used.add(node.attr)
                if is_of_itself and isinstance(node.ctx, ast.Store):
                    own.add(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                own.add(node.target.id)
    assert used - own - {*OTHERS.split(), *(name for _, name in EACH)} == set()
