"""Each record is written once, in one format, whatever else configures logging."""

import json
import logging
import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tornado_chassis.logs import root

from .testing import MAIN, Process, inherited, process

SHOP = """
import json, logging, logging.config, sys, warnings

from tornado.log import enable_pretty_logging
from tornado.web import RequestHandler
from tests.chassis import routes

library = logging.getLogger("library")


def configure():
    {what}


class Configure(RequestHandler):
    def get(self):
        configure()


def make_service(settings):
    if "{when}" == "before":
        configure()
    service = routes.make_service(settings)
    service.app.add_handlers(".*", [("/configure", Configure), ("/library", Library)])
    return service


class Library(RequestHandler):
    def get(self):
        library.warning("from the library")
        warnings.warn("an old way")


if "{when}" == "import":
    configure()
"""
DICT = {
    "version": 1,
    "formatters": {"plain": {"format": "PLAIN %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
}
ALEMBIC = "[loggers]\\nkeys=root,library\\n[handlers]\\nkeys=console\\n[formatters]\\nkeys=\\n"
ALEMBIC += "[logger_root]\\nlevel=WARNING\\nhandlers=console\\n"
ALEMBIC += "[logger_library]\\nlevel=WARNING\\nhandlers=console\\nqualname=library\\n"
ALEMBIC += "[handler_console]\\nclass=StreamHandler\\nargs=(sys.stderr,)\\n"
CONFIGURATIONS = {
    "basicConfig": "logging.basicConfig(level='ERROR', stream=sys.stdout)",
    "basicConfig by force": "logging.basicConfig(level='DEBUG', force=True)",
    "dictConfig": "logging.config.dictConfig({})".format(
        {**DICT, "root": {"handlers": ["console"], "level": "ERROR"}}
    ),
    "dictConfig of a logger": "logging.config.dictConfig({})".format(
        {**DICT, "loggers": {"library": {"handlers": ["console"], "propagate": False}}}
    ),
    "fileConfig": f"""import io; logging.config.fileConfig(io.StringIO('''{ALEMBIC}'''))""",
    "handler of a logger": "library.addHandler(logging.StreamHandler())",
    "pretty logging": "enable_pretty_logging()",
}


def started(folder: Path, **texts: str) -> AbstractContextManager[Process]:
    for name, text in texts.items():
        Path(folder, f"{name}.py").write_text(text)
    path = os.pathsep.join([str(folder), inherited()["PYTHONPATH"]])
    return process("main", PYTHONPATH=path)


@pytest.mark.parametrize("when", ["import", "before", "later"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_each_line_is_written_once_in_one_format(tmp_path: Path, name: str, when: str) -> None:
    shop = SHOP.format(what=CONFIGURATIONS[name], when=when)
    with started(tmp_path, main=MAIN.format("'shop'"), shop=shop) as service:
        service.wait_until_listening()
        service.fetch("/configure")
        for path in ("/library", "/hello/x"):
            service.fetch(path)
        with service.get("/boom") as connection:
            connection.recv(1024)
        assert service.stop() == 0
        lines = [json.loads(line) for line in service.output().splitlines()]
    messages = [line["message"] for line in lines]
    assert messages.count("from the library") == 1
    assert len([each for each in messages if "an old way" in each]) == 1
    assert messages.count("GET /hello/{name} 200") == 1
    assert messages.count("Unhandled exception in GET /boom") == 1
    assert "Stopped" in messages


def test_what_an_import_warns_of_and_raises_has_the_format(tmp_path: Path) -> None:
    shop = "import warnings\nwarnings.warn('an old way')\nimport nothing_of_this_name"
    with started(tmp_path, main=MAIN.format("'shop'"), shop=shop) as service:
        assert service.wait() == 1
        warning, error = [json.loads(line) for line in service.output().splitlines()]
    assert "an old way" in warning["message"]
    assert error["exception.type"] == "ModuleNotFoundError"


def test_handlers_that_write_elsewhere_stay() -> None:
    handler, logger = logging.FileHandler(os.devnull), logging.getLogger("elsewhere")
    logger.addHandler(handler)
    root.keep()
    assert logger.handlers == [handler]
    logger.removeHandler(handler)
    handler.close()
    assert logger.handlers == []
