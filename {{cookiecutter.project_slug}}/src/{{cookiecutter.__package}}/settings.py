"""The service's own settings, in addition to those of the chassis."""

from dataclasses import dataclass

from .chassis import settings


@dataclass(frozen=True, kw_only=True)
class Settings(settings.Settings):
    """A field is read from the environment variable that has its name in capitals."""
