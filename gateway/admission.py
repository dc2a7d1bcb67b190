"""How many websockets may be open: from one network address before they say whose they are, and of
one user afterwards. Counted by each gateway for itself, since it is its memory that they take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from services.shared.pulse import Counts
from services.shared.settings import Settings

_HOUSEHOLD: Final = 64  # bits of an IPv6 address; the rest is one customer's to choose


class TryAgainLater(Exception):
    """A websocket that finds no room. The message is a close reason: at most 123 bytes."""


class Place:
    """One websocket's place among the open ones: its address's until it is a user's."""

    def __init__(self, admission: Admission, address: str) -> None:
        self._admission = admission
        self._counted = f"address {address}"

    def name(self, user_id: str) -> None:
        """Count it as the user's. Raises TryAgainLater."""
        self._counted = self._admission.move(self._counted, f"user {user_id}")


class Admission:
    def __init__(self, settings: Settings, counts: Counts) -> None:
        """`counts`: has their number, too."""
        self._counts = counts
        self._open: Counter[str] = Counter()
        self._settings = settings

    @contextmanager
    def arrival(self, address: str) -> Iterator[Place]:
        """A place for as long as the block lasts. Raises TryAgainLater."""
        place = Place(self, address)
        self._enter(place._counted, self._settings.max_sockets_per_address)
        self._counts.sockets += 1
        try:
            yield place
        finally:
            self._counts.sockets -= 1
            self._leave(place._counted)

    def move(self, former: str, user: str) -> str:
        self._enter(user, self._settings.max_sockets_per_user)
        self._leave(former)
        return user

    def _enter(self, whose: str, most: int) -> None:
        if self._open[whose] >= most:
            raise TryAgainLater(f"{most} sockets are open for this {whose.split()[0]}, the most")
        self._open[whose] += 1

    def _leave(self, whose: str) -> None:
        self._open[whose] -= 1
        if not self._open[whose]:
            del self._open[whose]


@lru_cache(maxsize=1000)
def network_of(host: str) -> str:
    """The address as it is counted: of IPv6 the network that a customer is given."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ip_network((address, _HOUSEHOLD), strict=False))
    return str(address)
