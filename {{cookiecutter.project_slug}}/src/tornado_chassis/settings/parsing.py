"""Parsers for settings. Each raises ValueError with a message that says what the text should be."""

import re
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import SplitResult, urlsplit

T = TypeVar("T")
Parser = Callable[[str], Any]


class PartlyInvalid(ValueError):
    """Raised for a shared variable of which a part can be used: `value` is what that means."""

    def __init__(self, value: Any, problem: str) -> None:
        super().__init__(problem)
        self.value = value


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """A whole number in this range, including its ends."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"should be a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def number(minimum: float, maximum: float) -> Callable[[str], float]:
    """A number in this range, including its ends."""

    def parse(text: str) -> float:
        with suppress(ValueError):
            # Not digits of other scripts or with `_` between them, as for `integer`.
            is_plain = text.isascii() and "_" not in text
            if is_plain and minimum <= (value := float(text)) <= maximum:
                return value
        raise ValueError(f"should be a number from {minimum:g} to {maximum:g}")

    return parse


port = integer(0, 65535)
"""A TCP port, or 0 for any free port."""

seconds = number(0, 3600)
"""A duration of up to an hour."""


def boolean(text: str) -> bool:
    """`true` or `false`, `1` or `0`."""
    if text.lower() not in ("true", "1", "false", "0"):
        raise ValueError("should be true or false")
    return text.lower() in ("true", "1")


def choice(*choices: T) -> Callable[[str], T]:
    """One of these, in upper or lower case."""

    def parse(text: str) -> T:
        for each in choices:
            if str(each).lower() == text.lower():
                return each
        raise ValueError(f"should be one of {', '.join(map(str, choices))}")

    return parse


def comma_separated(text: str) -> tuple[str, ...]:
    """The parts between commas, without surrounding white space."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def hosts(text: str) -> str:
    """Host names and IP addresses, comma-separated; a text."""
    if not (found := comma_separated(text)):
        raise ValueError("should be addresses, comma-separated")
    return ",".join(dict.fromkeys(found))


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """IP addresses and networks such as `10.0.0.0/8`, comma-separated."""
    try:
        return tuple(ip_network(item) for item in comma_separated(text))
    except ValueError:
        raise ValueError("should be IP addresses or networks, comma-separated") from None


def http_url(text: str) -> str:
    """An HTTP or HTTPS URL without a user name or password."""
    url = split_http_url(text)
    if url is None:
        raise ValueError("should look like https://host:port/path")
    if "@" in url.netloc:
        raise ValueError("should not contain a user name or password")
    # With the scheme in lower case, for comparisons.
    return url.geturl()


def split_http_url(text: str) -> SplitResult | None:
    """The parts of an HTTP or HTTPS URL; None for any other text."""
    try:
        url = urlsplit(text)
        is_http = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # which may quote a secret
        return None
    return url if is_http and re.fullmatch("[!-~]+", text) else None


def parser_of(hint: Any) -> Parser:
    """The parser for a type: `str`, `int`, `float`, `bool` or `Literal`, each may be optional.

    Raises TypeError for any other type: its field has to name a parser.
    """
    if get_origin(hint) in (Union, UnionType) and get_args(hint)[1:] == (NoneType,):
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return choice(*get_args(hint))
    if hint not in _PARSERS:
        raise TypeError(f"a setting of type {hint} needs setting(parse=...)")
    return _PARSERS[hint]


_PARSERS: dict[Any, Parser] = {
    str: str,
    int: integer(-(2**63), 2**63 - 1),
    float: number(float("-inf"), float("inf")),
    bool: boolean,
}
