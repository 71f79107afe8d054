"""Addresses as numbers: subnets, which of them are free, and who has which address. Pure.

The `ipaddress` module is not used: its import costs as much as the rest of the supervisor's network code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kapelle.errors import EngineError
from kapelle.light import NamedTuple, socket


class Subnet(NamedTuple):
    """`first` is the network's own address as a number; `bits` is 32 or 128."""

    first: int
    prefix: int
    bits: int = 32

    @property
    def last(self) -> int:
        return self.first | ((1 << (self.bits - self.prefix)) - 1)

    @property
    def packed(self) -> bytes:
        return self.first.to_bytes(self.bits // 8, "big")

    def __str__(self) -> str:
        return f"{to_text(self.first, self.bits)}/{self.prefix}"

    def has(self, address: int) -> bool:
        return self.first <= address <= self.last

    def overlaps(self, other: Subnet) -> bool:
        return self.bits == other.bits and self.first <= other.last and other.first <= self.last


def to_text(address: int, bits: int = 32) -> str:
    return socket.inet_ntop(socket.AF_INET if bits == 32 else socket.AF_INET6, address.to_bytes(bits // 8, "big"))


def to_number(address: str) -> tuple[int, int]:
    """(number, bits) of an address; ValueError when it is none."""
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError, UnicodeError):
        raise ValueError(f"{address!r} is not an IP address") from None
    return int.from_bytes(packed, "big"), len(packed) * 8


def parse_subnet(text: str) -> Subnet:
    """ "172.28.0.0/16" (bits of the host are dropped, as Docker does); ValueError when it is none."""
    address, slash, length = text.partition("/")
    number, bits = to_number(address)
    if not slash or not (length.isascii() and length.isdigit()) or int(length) > bits:
        raise ValueError(f"{text!r} is not a subnet in CIDR form, such as 172.28.0.0/16")
    prefix = int(length)
    mask = ((1 << bits) - 1) ^ ((1 << (bits - prefix)) - 1)
    return Subnet(number & mask, prefix, bits)


def from_packed(packed: bytes, prefix: int) -> Subnet:
    return Subnet(int.from_bytes(packed, "big"), prefix, len(packed) * 8)


def mac_of(address: int) -> str:
    """The interface address that belongs to an IPv4 address: a container that comes back is found at once."""
    return "02:42:" + (address & 0xFFFFFFFF).to_bytes(4, "big").hex(":")


def candidates() -> Iterator[Subnet]:
    """Subnets to choose from: Docker's own pools without its default bridge, then 10.128.0.0/9 in pieces."""
    for second in range(18, 32):
        yield Subnet(172 << 24 | second << 16, 16)
    for third in range(0, 256, 16):
        yield Subnet(192 << 24 | 168 << 16 | third << 8, 20)
    for second in range(128, 256):
        for third in range(0, 256, 16):
            yield Subnet(10 << 24 | second << 16 | third << 8, 20)


def candidates6(seed: int) -> Iterator[Subnet]:
    """Unique local subnets (RFC 4193) below a prefix made from `seed`."""
    for number in range(1 << 16):
        yield Subnet((0xFD << 120) | ((seed & 0xFFFFFFFFFF) << 80) | (number << 64), 64, 128)


def free_subnets(pool: Iterable[Subnet], taken: Iterable[Subnet]) -> Iterator[Subnet]:
    """Those of the pool that overlap with none of `taken`."""
    used = tuple(taken)
    return (subnet for subnet in pool if not any(subnet.overlaps(other) for other in used))


class Addresses:
    """Who has which address of one subnet. The gateway is never given.

    Addresses that nobody has had yet are given first, the lowest before others: a container that comes back
    finds its own one free, and nobody meets a stranger under an address that a cache still knows.
    """

    def __init__(self, subnet: Subnet, gateway: int = 0, only: Subnet | None = None) -> None:
        """`only` is the part of the subnet that addresses are chosen from (ip_range)."""
        self.subnet = subnet
        # An IPv4 subnet's first and last addresses are its own and the broadcast one, except in a /31 or /32.
        plain = subnet.bits == 32 and subnet.prefix < 31
        self._low = subnet.first + (1 if plain or subnet.bits == 128 else 0)
        self._high = subnet.last - (1 if plain else 0)
        self.gateway = gateway or self._low
        self._from = max(self._low, only.first) if only is not None else self._low
        self._to = min(self._high, only.last) if only is not None else self._high
        self._owners: dict[int, str] = {self.gateway: ""}
        self._reserved: set[int] = set()
        self._past: dict[int, str] = {}  # free again → who had it last; the longest free first

    def reserve(self, address: int) -> None:
        """Give this one only to who asks for it (aux_addresses, addresses that the file gives to others)."""
        self._reserved.add(address)

    def take(self, owner: str, wanted: int = 0, network: str = "", previous: int = 0) -> int:
        """An address for `owner`: the wanted one, else the previous one, else one of the free ones.

        EngineError KAP202 when the wanted one or any is not to be had.
        """
        if wanted:
            self._check(owner, wanted, network)
            return self._give(owner, wanted)
        if previous and self._low <= previous <= self._high and self._owners.get(previous, owner) == owner:
            return self._give(owner, previous)
        mine = next((address for address, past in self._past.items() if past == owner), 0)
        if mine and mine not in self._owners:
            return self._give(owner, mine)
        for address in range(self._from, self._to + 1):
            if address not in self._owners and address not in self._past and address not in self._reserved:
                return self._give(owner, address)
        for address in self._past:
            if self._from <= address <= self._to and address not in self._reserved:
                return self._give(owner, address)
        raise EngineError(
            f"network {network} has no free address left in {self.subnet}",
            code="KAP202",
            hint="give the network a larger subnet (networks.*.ipam.config.subnet)",
        )

    def _check(self, owner: str, wanted: int, network: str) -> None:
        text = to_text(wanted, self.subnet.bits)
        if not self._low <= wanted <= self._high:
            raise EngineError(
                f"address {text} does not lie in the subnet {self.subnet} of network {network}",
                code="KAP202",
                hint="choose an address of the subnet, or set the network's ipam.config.subnet",
            )
        holder = self._owners.get(wanted, owner)
        if holder != owner:
            who = f"container {holder[:12]}" if holder else "the network's gateway"
            raise EngineError(
                f"address {text} of network {network} is already taken by {who}",
                code="KAP202",
                hint="give one of the two another address",
            )

    def _give(self, owner: str, address: int) -> int:
        self._past.pop(address, None)
        self._owners[address] = owner
        return address

    def hold(self, owner: str, address: int) -> None:
        """An address that `owner` has by another's choice."""
        self._past.pop(address, None)
        self._owners.setdefault(address, owner)

    def release(self, owner: str) -> None:
        """Free what `owner` has."""
        if owner:
            for address in [a for a, o in self._owners.items() if o == owner]:
                del self._owners[address]
                self._past[address] = owner
