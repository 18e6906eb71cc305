"""The service's own settings, beside those of the chassis."""

from dataclasses import dataclass

from .chassis import settings


@dataclass(frozen=True, kw_only=True)
class Settings(settings.Settings):
    """Each field is read from the environment variable of its name in capitals."""
