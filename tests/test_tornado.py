"""Whatever Tornado promises holds for a service's `Application`, too."""

from pathlib import Path

import pytest

from .conftest import Generate

CANNOT = [
    # Compares what the modules export with a list, and ours is from elsewhere.
    "tornado.test.api_test.APISnapshotTest.test_api_snapshot",
]


@pytest.mark.full
def test_suite_of_tornado_passes(generate: Generate) -> None:
    project = generate(logging="none", error_tracking="none", metrics="none", tracing="none")
    project.sync()
    runner = Path(__file__).with_name("tornado_suite.py")
    *_, ran = lines = project.run(project.python, runner, project.package).splitlines()
    assert [line for line in lines if line.startswith("tornado.test.")] == CANNOT
    assert int(ran.removeprefix("ran ")) > 1500
