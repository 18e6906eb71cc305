"""Runs Tornado's own tests with the chassis' `Application` in place of Tornado's.

Prints the names of those that fail, a line each, and how many ran. What fails runs once more: some
ask for ports that are free, and other tests run beside these.
"""

import logging
import unittest
from collections.abc import Iterable
from functools import partial
from typing import Any

import tornado.web
from tornado.log import gen_log
from tornado.test import runtests
from tornado_chassis import application, hooks, rejections


def with_tornado_s_log(handler: Any, own: Any, exchange: Any, *error: Any) -> None:
    (own or partial(type(handler).log_exception, handler))(*error[:3])


class Application(application.Application):
    # As Tornado's own is called.
    def __init__(
        self,
        handlers: Any = None,
        default_host: Any = None,
        transforms: Any = None,
        **settings: Any,
    ) -> None:
        settings |= {"default_host": default_host, "transforms": transforms}
        super().__init__(handlers or [], **settings)


tornado.web.Application = Application  # type: ignore[misc]
# The tests look for Tornado's log messages, which ours stand for.
hooks.log_failure = with_tornado_s_log
gen_log.removeFilter(rejections._is_needed)
rejections.log.setLevel(logging.CRITICAL)
logging.getLogger("tornado.access").setLevel(logging.CRITICAL)


def run(names: Iterable[str]) -> tuple[set[str], int]:
    """Those that fail, and how many have run."""
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    result = unittest.TextTestRunner(verbosity=0, buffer=True).run(suite)
    failed = [*result.failures, *result.errors]
    return {test.id() for test, _ in failed}, result.testsRun


failed, count = run(runtests.TEST_MODULES)
print(*sorted(run(failed)[0]), f"ran {count}", sep="\n")
