"""Runs the service of `routes.py` as a process: `python -m tests.chassis.stand_in`."""

from my_service.chassis import process
from my_service.chassis.settings import Settings


def main() -> None:
    settings = process.configure(Settings)
    from .routes import make_service

    process.run(make_service(settings))


if __name__ == "__main__":
    main()
