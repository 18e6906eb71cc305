"""The service's own settings, beside those that come with its features."""

from dataclasses import dataclass

from . import features


@dataclass(frozen=True, kw_only=True)
class Settings(features.Settings):
    """Each field is read from the environment variable of its name in capitals."""
