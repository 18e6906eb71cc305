"""Entry point of the command and of `python -m`."""

from .chassis import process
from .settings import Settings


def main() -> None:
    """Runs the service until SIGTERM or SIGINT.

    Raises SystemExit with status 78 for invalid settings, and 69 for an address in use.
    """
    settings = process.configure(Settings)
    # Only now: invalid settings are reported without waiting for Tornado to load.
    from .app import make_service

    process.run(make_service(settings))


if __name__ == "__main__":
    main()
