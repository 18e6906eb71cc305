"""Entry point of the command and of `python -m`."""

import sys

from tornado_chassis import process

from .settings import Settings


def main() -> None:
    """Does what the arguments say: without any, runs the service until SIGTERM or SIGINT."""
    process.main(sys.argv[1:], Settings, app=f"{__package__}.app")


if __name__ == "__main__":
    main()
