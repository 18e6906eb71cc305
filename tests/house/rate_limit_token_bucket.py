"""A limit on how many requests a second are let in, as a token bucket."""

from math import ceil
from time import monotonic

from .application import Exchange, Observer, Refusal
from .settings import Settings


class RateLimit(Observer):
    """Refuses what exceeds `RATE_LIMIT_PER_SECOND`, with 429 and `Retry-After`.

    A burst of `RATE_LIMIT_BURST` is let in at once. Without a limit, all is.
    """

    def __init__(self, settings: Settings) -> None:
        self._rate = settings.rate_limit_per_second
        self._burst = settings.rate_limit_burst
        self._tokens = float(self._burst)
        self._filled = monotonic()
        self._refused = 0

    def refuse(self, exchange: Exchange) -> Refusal | None:
        if self._rate is None or exchange.is_probe:
            return None
        now = monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens >= 1:
            self._tokens -= 1
            return None
        self._refused += 1
        seconds = ceil((1 - self._tokens) / self._rate)
        return Refusal(429, "Too Many Requests", "rate_limit", {"Retry-After": str(seconds)})

    def totals(self) -> list[tuple[str, str, int]]:
        return [("rate_limited_requests", "Requests refused by the rate limit.", self._refused)]
