import asyncio
import inspect
import logging
import os
from collections.abc import Iterator

import pytest

# Other tests run beside: twice as long as a service's own tests wait.
os.environ.setdefault("ASYNC_TEST_TIMEOUT", "60")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs an async test on an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    """Leaves logging as it was: other tests would have the handlers and the level of a service."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogRecordFactory()
    yield
    root.handlers[:], root.level = before[:2]
    logging.setLogRecordFactory(before[2])
    logging.captureWarnings(False)
