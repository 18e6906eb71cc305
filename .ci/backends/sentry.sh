# shellcheck shell=bash
# Bugsink stands in for Sentry: the same protocol, in one process with an SQLite database.
install_sentry() {
    local directory=$1
    "$PYTHON" -m venv "$directory"
    "$directory/bin/pip" install --quiet --disable-pip-version-check bugsink==2.6.1

    # Databases and files go to the working directory.
    cat >"$directory/bugsink_conf.py" <<'PYTHON'
import os

from bugsink.settings.default import *  # noqa: F403

SECRET_KEY = "only-for-tests-on-loopback-" * 2
TIME_ZONE = "UTC"
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
# Store an event before its request is answered, without a worker process.
SNAPPEA = {"TASK_ALWAYS_EAGER": True}
UNLIMITED = 1_000_000_000
BUGSINK = {
    "INGEST_STORE_BASE_DIR": os.path.abspath("ingestion"),
    "PHONEHOME": False,
    # Not "strict": the schema lacks "message", which the SDK's capture_message sends.
    "VALIDATE_ON_DIGEST": "warn",
    "KEEP_ENVELOPES": 1000,
    "MAX_EVENTS_PER_PROJECT_PER_5_MINUTES": UNLIMITED,
    "MAX_EVENTS_PER_PROJECT_PER_HOUR": UNLIMITED,
    "MAX_EVENTS_PER_PROJECT_PER_MONTH": UNLIMITED,
    "MAX_EVENTS_PER_5_MINUTES": UNLIMITED,
    "MAX_EVENTS_PER_HOUR": UNLIMITED,
    "MAX_EVENTS_PER_MONTH": UNLIMITED,
}
PYTHON

    # Migrating takes seconds: each test gets a copy of this database instead.
    (
        cd "$directory" || exit
        bin/bugsink-manage migrate --verbosity 0
        bin/bugsink-manage shell --verbosity 0 --command "
from projects.models import Project
Project.objects.create(id=1, name='tests', slug='tests', sentry_key='0123456789abcdef' * 2)
"
    )
}
