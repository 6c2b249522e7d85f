"""How often: token buckets, of one connection or one per address. The clock is given, so that tests own it.

A bucket holds `burst` at first and gains `rate` a second up to that; what is asked of an empty one is
refused.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Mapping
from typing import Any

Clock = Callable[[], float]

MAX_ADDRESSES = 10_000
"""Addresses that are remembered at once, those that asked last. Whoever has more of them is not held up by
counting addresses."""


class Bucket:
    """One token bucket."""

    def __init__(self, rate: float, burst: float, clock: Clock = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._held = burst
        self._at = clock()

    def take(self, count: int = 1) -> bool:
        """Take so many out; False, and none is taken, when there are not enough."""
        if self.held < count:
            return False
        self._held -= count
        return True

    @property
    def held(self) -> float:
        """How many are in it now."""
        now = self._clock()
        self._held = min(self._burst, self._held + (now - self._at) * self._rate)
        self._at = now
        return self._held


class PerAddress:
    """A bucket for every address that has asked lately."""

    def __init__(self, rate: float, burst: float, clock: Clock = time.monotonic) -> None:
        self._new: Callable[[], Bucket] = lambda: Bucket(rate, burst, clock)
        self._buckets: dict[str, Bucket] = {}

    def take(self, address: str, count: int = 1) -> bool:
        """Take so many out of the bucket of an address; False, and none is taken, when there are not
        enough."""
        bucket = self._buckets.pop(address, None) or self._new()
        self._buckets[address] = bucket  # now the last one
        if len(self._buckets) > MAX_ADDRESSES:
            del self._buckets[next(iter(self._buckets))]
        return bucket.take(count)

    def empty(self, address: str) -> bool:
        """Whether `take` would be refused."""
        bucket = self._buckets.get(address)
        return bucket is not None and bucket.held < 1


def address_of(scope: Mapping[str, Any]) -> str:
    """Who asks, as far as counting goes: an IPv4 address, or the /64 that one IPv6 household has.

    Behind a trusted proxy this comes out of `X-Forwarded-For`, where anything may stand: what is no address
    is counted as one stranger.
    """
    host = (scope.get("client") or ("",))[0]
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_loopback:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))
