"""Whatever Tornado promises holds for a service's `Application`, too."""

import os
import subprocess
from pathlib import Path

import pytest
import uv

from ..backends import RUN_SECONDS
from .project import TEMPLATE, interpreters

CANNOT = [
    # Compares what the modules export with a list, and ours is from elsewhere.
    "tornado.test.api_test.APISnapshotTest.test_api_snapshot",
]


@pytest.mark.full
@pytest.mark.parametrize("version", interpreters(), ids=lambda version: "{}.{}".format(*version))
def test_suite_of_tornado_passes(version: tuple[int, int]) -> None:
    command = [uv.find_uv_bin(), "run", "--isolated", "--no-project", "--quiet"]
    command += [f"--python={interpreters()[version]}", f"--with-editable={TEMPLATE}"]
    runner = Path(__file__).with_name("tornado_suite.py")
    # Not five seconds, where other tests run beside it.
    env = {**os.environ, "ASYNC_TEST_TIMEOUT": "60"}
    done = subprocess.run(
        [*command, runner], env=env, capture_output=True, text=True, timeout=RUN_SECONDS
    )
    assert done.stdout, done.stderr
    *_, ran = lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("tornado.test.")] == CANNOT
    # Python 3.12.1 leaves out those that are skipped.
    assert int(ran.removeprefix("ran ")) > 1400
