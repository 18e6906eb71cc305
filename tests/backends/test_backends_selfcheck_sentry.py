from collections.abc import Iterator
from pathlib import Path

import pytest
import sentry_sdk

from . import NotInstalled
from .sentry import Sentry, running


@pytest.fixture
def sentry(tmp_path: Path) -> Iterator[Sentry]:
    try:
        with running(tmp_path) as server:
            yield server
    except NotInstalled as missing:
        pytest.skip(str(missing))


def test_event_sent_by_the_sdk_is_stored_whole(sentry: Sentry) -> None:
    client = sentry_sdk.Client(dsn=sentry.dsn, release="1.2.3", default_integrations=False)
    with sentry_sdk.new_scope() as scope:
        scope.set_client(client)
        scope.set_tag("colour", "green")
        try:
            raise ValueError("told so")
        except ValueError as error:
            event_id = scope.capture_exception(error)
    client.close(timeout=10)

    (event,) = sentry.wait_for_events()
    assert event["event_id"] == event_id
    assert event["release"] == "1.2.3"
    assert event["tags"]["colour"] == "green"
    (exception,) = event["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("ValueError", "told so")
    assert event_id is not None
    assert event_id.encode() in sentry.envelopes()[0]
    assert sentry.schema_findings() == []


def test_event_that_breaks_the_schema_is_found(sentry: Sentry) -> None:
    client = sentry_sdk.Client(dsn=sentry.dsn, default_integrations=False)
    client.capture_event({"level": "no such level"})  # type: ignore[typeddict-item]
    client.close(timeout=10)
    sentry.wait_for_events()
    (finding,) = sentry.schema_findings()
    assert "no such level" in finding


def test_wait_reports_what_the_server_said(sentry: Sentry) -> None:
    wrong_key = sentry.dsn.replace("0123", "3210")
    client = sentry_sdk.Client(dsn=wrong_key, default_integrations=False)
    client.capture_event({"level": "info"})
    client.close(timeout=10)
    with pytest.raises(TimeoutError, match="Forbidden"):
        sentry.wait_for_events(timeout=1)
    assert b'"level":"info"' in sentry.envelopes()[0]
