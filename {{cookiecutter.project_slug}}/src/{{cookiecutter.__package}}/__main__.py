"""Entry point: `python -m {{ cookiecutter.__package }}`, or the command `{{ cookiecutter.project_slug }}`."""

import asyncio

from . import settings


def main() -> None:
    """Runs the service until SIGTERM or SIGINT; raises SystemExit for a status other than 0."""
    configuration = settings.load()
    # Invalid settings are told without waiting for these to load.
    from .app import make_service
    from .server import serve

    asyncio.run(serve(make_service(configuration), configuration))


if __name__ == "__main__":
    main()
