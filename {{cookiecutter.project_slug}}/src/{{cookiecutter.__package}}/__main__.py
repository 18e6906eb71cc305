"""Entry point: the command `{{ cookiecutter.project_slug }}`, and `python -m`."""

import asyncio
import os
import signal

# {% if cookiecutter.error_tracking == "newrelic" %}
from . import errors_agent, settings
# {% else %}
from . import settings
# {% endif %}


def main() -> None:
    """Runs the service until SIGTERM or SIGINT; raises SystemExit for a status other than 0."""
    # Until the service can drain, a signal ends it at once. Without a handler, a process with the
    # id 1 would ignore it.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, frame: os._exit(128 + number))
    configuration = settings.load()
    # {% if cookiecutter.error_tracking == "newrelic" %}
    # Before anything imports Tornado.
    errors_agent.initialize(configuration)
    # {% endif %}
    # Invalid settings are told without waiting for these to load.
    from .app import make_service
    from .server import serve

    asyncio.run(serve(make_service(configuration), configuration))


if __name__ == "__main__":
    main()
