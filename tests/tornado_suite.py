"""Runs Tornado's own tests with a project's `Application` in place of Tornado's.

`python tornado_suite.py PACKAGE` prints the names of those that fail, a line each, and how many
ran.
"""

import importlib
import logging
import sys
import unittest
from functools import partial
from typing import Any

import tornado.web
from tornado.log import gen_log
from tornado.test import runtests


def main(package: str) -> None:
    application = importlib.import_module(f"{package}.chassis.application")
    observed = importlib.import_module(f"{package}.chassis.observed")
    refusals = importlib.import_module(f"{package}.chassis.refusals")

    def with_tornado_s_log(handler: Any, own: Any, exchange: Any, *error: Any) -> None:
        (own or partial(type(handler).log_exception, handler))(*error[:3])

    class Application(application.Application):  # type: ignore[name-defined, misc]
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
    observed.log_failure = with_tornado_s_log
    gen_log.removeFilter(refusals._is_of_a_client)
    refusals.log.setLevel(logging.CRITICAL)
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)

    suite = unittest.defaultTestLoader.loadTestsFromNames(runtests.TEST_MODULES)
    result = unittest.TextTestRunner(verbosity=0, buffer=True).run(suite)
    failed = [*result.failures, *result.errors]
    print(*sorted({test.id() for test, _ in failed}), f"ran {result.testsRun}", sep="\n")


main(sys.argv[1])
