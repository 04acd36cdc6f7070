r"""Validity as a type: a :class:`ValidPorts` or :class:`ValidState` exists only if every local constraint holds.

For a port state :math:`S_i \subseteq \{\pm x, \pm y, \pm z\}` on every site of an open box (paper §4.2, appendix B.1):

- matched: for neighbours i and j = i + e, :math:`e \in S_i \iff -e \in S_j`;
- closed: no port looks out of the box;
- of degree zero, one or two: a site is empty, the end of a path, or inside one;
- a type between 1 and T on every occupied site, type 0 and a zero field on every empty one.

:func:`first_violation` names the first site, in row-major order, and the neighbour with which it is at odds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Lattice, Site
from sizetransfer.contracts.errors import OracleError
from sizetransfer.systems.hard_valid.directions import CODES, DIRECTIONS, neighbour, opposite, port_bits, unit

Kind = Literal["no port state", "faces out", "unmatched", "degree", "type on empty", "no type", "field on empty"]

_EXPECTED: dict[Kind, str] = {
    "no port state": f"an integer between 0 and {CODES - 1}, one bit for each of {', '.join(DIRECTIONS)}",
    "faces out": "no port that looks out of the box",
    "unmatched": "a port that looks back, or none on either side",
    "degree": "at most two ports on a site",
    "type on empty": "type 0 where no port is open",
    "no type": "a type between 1 and the number of types where a port is open",
    "field on empty": "a field of exactly zero where no port is open",
}


@dataclass(frozen=True)
class Violation:
    """The first place at which a configuration breaks a constraint.

    Attributes:
        kind: which constraint.
        row: row of the batch.
        site: the site.
        neighbour: the other site of an offending pair; for ``faces out`` the place beyond the wall.
        found: what is there.
    """

    kind: Kind
    row: int
    site: Site
    neighbour: Site | None
    found: str

    def __str__(self) -> str:
        pair = "" if self.neighbour is None else f" towards {self.neighbour}"
        return f"{self.kind} at site {self.site}{pair} of row {self.row}: {self.found}"

    def error(self) -> OracleError:
        """The violation as an error for users."""
        return OracleError(
            "The configuration is not valid: " + str(self).split(":", maxsplit=1)[0] + ".",
            where=f"row {self.row}, site {self.site}"
            + ("" if self.neighbour is None else f", neighbour {self.neighbour}"),
            expected=_EXPECTED[self.kind],
            got=self.found,
            fix="take ports, types and field of one sample, or repair the site named above",
        )


def first_violation(ports: Tensor) -> Violation | None:
    """The first site whose ports break a constraint, or none.

    Args:
        ports: integers ``B *S``, with three axes ``*S``.

    Returns:
        The violation of the first row, then of the first site in row-major order; of an unmatched pair, the site
        with the smaller coordinates comes first, whichever of the two has the port.
    """
    bits = port_bits(ports)
    inside = torch.ones_like(ports, dtype=torch.bool)
    wrong = {("no port state", -1): (ports < 0) | (ports >= CODES)}
    for direction in range(6):
        wrong["faces out", direction] = bits[:, direction] & ~neighbour(inside, direction)
    for direction in (0, 2, 4):
        across = neighbour(bits[:, opposite(direction)], direction)
        wrong["unmatched", direction] = (bits[:, direction] != across) & neighbour(inside, direction)
    wrong["degree", -1] = bits.sum(1) > 2
    faults = torch.stack(list(wrong.values()), dim=-1)
    if not bool(faults.any()):
        return None
    row, *place, which = (int(index) for index in faults.nonzero()[0])
    kind, direction = list(wrong)[which]
    site = tuple(place)
    other = None if direction < 0 else tuple(a + step for a, step in zip(site, unit(direction), strict=True))
    found = f"ports {_named(int(ports[(row, *site)]))}"
    if kind == "unmatched" and other is not None:
        found += f" against {_named(int(ports[(row, *other)]))} of the neighbour"
    return Violation(kind, row, site, other, found)  # type: ignore[arg-type]  # the keys above are kinds


def _named(code: int) -> str:
    if not 0 <= code < CODES:
        return str(code)
    return "{" + ", ".join(name for bit, name in enumerate(DIRECTIONS) if code >> bit & 1) + "}"


def first_wrong_type(ports: Tensor, types: Tensor, count: int) -> Violation | None:
    """The first site whose type does not fit its ports, or none; ``ports`` and ``types`` are integers ``B *S``."""
    empty = ports == 0
    faults = torch.stack([empty & (types != 0), ~empty & ((types < 1) | (types > count))], dim=-1)
    if not bool(faults.any()):
        return None
    row, *place, which = (int(index) for index in faults.nonzero()[0])
    kind: Kind = "no type" if which else "type on empty"
    return Violation(kind, row, tuple(place), None, f"type {int(types[(row, *place)])}")


def first_field_on_empty(ports: Tensor, x: Tensor) -> Violation | None:
    """The first empty site on which the field ``B C *S`` is not zero, or none."""
    faults = (ports == 0) & (x != 0).any(1)
    if not bool(faults.any()):
        return None
    row, *place = (int(index) for index in faults.nonzero()[0])
    values = x.detach().movedim(1, -1)[(row, *place)].tolist()
    return Violation("field on empty", row, tuple(place), None, f"field {', '.join(f'{value:g}' for value in values)}")


@dataclass(frozen=True, eq=False)
class ValidPorts:
    """Port states that keep every constraint.

    Attributes:
        codes: port states, int64 of shape ``B *S``, bit d for direction d.

    Raises:
        OracleError: a constraint is broken; with the site and its neighbour.

    Example:
        >>> ports = torch.zeros(1, 2, 2, 2, dtype=torch.int64)
        >>> ports[0, 0, 0, 0], ports[0, 1, 0, 0] = 1, 2
        >>> ValidPorts(ports).occupied.sum().item()
        2
    """

    codes: Tensor

    def __post_init__(self) -> None:
        if self.codes.ndim != 4 or self.codes.dtype != torch.int64:
            raise OracleError(
                "Port states are integers on the sites of a three-dimensional box.",
                where="ports",
                expected="int64 of shape (B, X, Y, Z)",
                got=f"{self.codes.dtype} of shape {tuple(self.codes.shape)}",
                fix="pass sample.labels['ports']",
            )
        violation = first_violation(self.codes)
        if violation is not None:
            raise violation.error()

    @property
    def occupied(self) -> Tensor:
        """Sites with a port, booleans of shape ``B *S``."""
        return self.codes != 0

    @property
    def domain(self) -> Lattice:
        """The open box."""
        return Lattice(tuple(self.codes.shape[1:]), periodic=False)


@dataclass(frozen=True, eq=False)
class ValidState:
    """Ports and types that keep every constraint.

    Attributes:
        ports: the port states.
        types: int64 of shape ``B *S``, between 1 and ``count`` on occupied sites, 0 on empty ones.
        count: number of types T.

    Raises:
        OracleError: a type does not fit its site; with the site.
    """

    ports: ValidPorts
    types: Tensor
    count: int

    def __post_init__(self) -> None:
        codes = self.ports.codes
        if self.types.shape != codes.shape or self.types.dtype != torch.int64:
            raise OracleError(
                "Types are integers on the sites of the ports.",
                where="types",
                expected=f"int64 of shape {tuple(codes.shape)}",
                got=f"{self.types.dtype} of shape {tuple(self.types.shape)}",
                fix="pass sample.labels['types']",
            )
        violation = first_wrong_type(codes, self.types, self.count)
        if violation is not None:
            raise violation.error()

    @property
    def occupied(self) -> Tensor:
        """Sites with a port, booleans of shape ``B *S``."""
        return self.ports.occupied

    @property
    def domain(self) -> Lattice:
        """The open box."""
        return self.ports.domain

    def require_zero(self, x: Tensor) -> None:
        """Refuse a field ``B C *S`` that does not vanish on the empty sites.

        Raises:
            OracleError: with the first such site.
        """
        violation = first_field_on_empty(self.ports.codes, x)
        if violation is not None:
            raise violation.error()
