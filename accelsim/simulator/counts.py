"""What a run is counted in: operations by width, accesses by place, zero operands, bit toggles. docs/energy.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from accelsim.tables import html_table

OperationKind = Literal[
    "multiply", "add", "compare", "shift", "divide", "look_up", "float_multiply", "float_add"
]  # fmt: skip
Place = Literal["register", "sram", "dram"]


class Operation(NamedTuple):
    """An elementary operation by kind and widths.

    Parameters
    ----------
    kind : str
        ``multiply``, ``add``, ``compare``, ``shift``, ``divide``, ``look_up``, ``float_multiply`` or ``float_add``.
    a_bits, b_bits : int
        Widths: of the factors; of an adder, comparator or shifter and of what is added or compared; of dividend and
        divisor; of a table's index and entry.
    """

    kind: OperationKind
    a_bits: int
    b_bits: int


class Access(NamedTuple):
    """A kind of access to something that holds bits.

    Parameters
    ----------
    place : {"register", "sram", "dram"}
        Where.
    what : str
        Which register, buffer port or stream: ``weight``, ``activation``, ``product``, ``partial_sum``, ...
    bits : int
        Width of one access.
    """

    place: Place
    what: str
    bits: int


@dataclass(frozen=True)
class OperationCount:
    """Arithmetic operations of a run.

    Two counts are equal where their numbers are, whatever the widths.

    Parameters
    ----------
    multiplications : int
        Products of weights and activations made by PEs.
    additions : int
        Additions of products in trees, partial sums and accumulators: one per product.
    row_sum_additions : int
        Additions of the row sums that asymmetric weights need, docs/numerics.md (8), with the final one per output.
    row_sum_multiplications : int
        Products of row sums and weight zero points.
    requantizations : int
        Accumulators brought to codes.
    vector_operations : int
        Element operations of the layers without weights, docs/timing.md (25) to (29).
    widths : tuple of (Operation, int)
        The same work in elementary operations by width, docs/energy.md section 1; see `by_width`.
    """

    multiplications: int = 0
    additions: int = 0
    row_sum_additions: int = 0
    row_sum_multiplications: int = 0
    requantizations: int = 0
    vector_operations: int = 0
    widths: tuple[tuple[Operation, int], ...] = field(default=(), compare=False)

    @property
    def total(self) -> int:
        """All operations, each requantization and vector operation as one."""
        return sum(getattr(self, name) for name in _NUMBERS)

    @property
    def by_width(self) -> dict[Operation, int]:
        """Elementary operations by kind and widths."""
        return dict(self.widths)

    def __add__(self, other: OperationCount) -> OperationCount:
        numbers = {name: getattr(self, name) + getattr(other, name) for name in _NUMBERS}
        return OperationCount(**numbers, widths=merged(self.widths, other.widths))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, and the elementary operations as a list, for JSON."""
        listed = [{**operation._asdict(), "count": count} for operation, count in self.widths]
        return {**{name: getattr(self, name) for name in _NUMBERS}, "total": self.total, "by_width": listed}

    def _repr_html_(self) -> str:
        names = [*_NUMBERS, "total"]
        totals = html_table([name.replace("_", " ") for name in names], [[f"{getattr(self, n):,}" for n in names]])
        header = ["operation", "bits", "count"]
        rows = [[o.kind, f"{o.a_bits} x {o.b_bits}", f"{count:,}"] for o, count in self.widths]
        return totals + html_table(header, rows, "by width")


_NUMBERS = tuple(f.name for f in fields(OperationCount) if f.name != "widths")


@dataclass(frozen=True)
class AccessCount:
    """Accesses of registers, SRAM and DRAM: docs/energy.md section 2.

    Parameters
    ----------
    kinds : tuple of (Access, int)
        How often each.
    """

    kinds: tuple[tuple[Access, int], ...] = ()

    def accesses(self, place: Place) -> int:
        """Return the accesses of a place."""
        return sum(count for access, count in self.kinds if access.place == place)

    def bits(self, place: Place) -> int:
        """Return the bits that move to or from a place."""
        return sum(count * access.bits for access, count in self.kinds if access.place == place)

    def __add__(self, other: AccessCount) -> AccessCount:
        return AccessCount(merged(self.kinds, other.kinds))

    def to_dict(self) -> dict[str, Any]:
        """Return accesses and bits by place, and all kinds as a list, for JSON."""
        places: tuple[Place, ...] = ("register", "sram", "dram")
        return {
            **{place: {"accesses": self.accesses(place), "bits": self.bits(place)} for place in places},
            "kinds": [{**access._asdict(), "count": count} for access, count in self.kinds],
        }


@dataclass(frozen=True)
class ZeroOperands:
    """Multiplications that a zero-gating PE would skip, by operands as the PEs multiply them: docs/energy.md (9).

    Parameters
    ----------
    weight : int
        Multiplications by a zero weight.
    activation : int
        Multiplications by a zero activation.
    either : int
        Multiplications with at least one zero.
    """

    weight: int = 0
    activation: int = 0
    either: int = 0

    def __add__(self, other: ZeroOperands) -> ZeroOperands:
        return ZeroOperands(
            self.weight + other.weight, self.activation + other.activation, self.either + other.either
        )  # fmt: skip


@dataclass(frozen=True)
class Toggles:
    """Bits that change from one cycle to the next, by kind of register: docs/energy.md section 4.

    Parameters
    ----------
    weight, activation : int
        Of the operand registers.
    product : int
        At the multipliers' outputs.
    sum : int
        Of the accumulators in the PEs of an output-stationary grid and of a broadcast grid's rows, of the partial sums
        in the PEs of the other two.
    sampled : bool
        Product and sum are estimates from some folds; the operands' counts are exact all the same.
    folds_counted, folds : int
        Folds that product and sum were counted in, and all.
    seed : int or None
        Of the sample; None where every fold was counted.
    """

    weight: int = 0
    activation: int = 0
    product: int = 0
    sum: int = 0
    sampled: bool = False
    folds_counted: int = 0
    folds: int = 0
    seed: int | None = None

    @property
    def total(self) -> int:
        """All toggles."""
        return self.weight + self.activation + self.product + self.sum

    def __add__(self, other: Toggles) -> Toggles:
        return Toggles(
            self.weight + other.weight,
            self.activation + other.activation,
            self.product + other.product,
            self.sum + other.sum,
            self.sampled or other.sampled,
            self.folds_counted + other.folds_counted,
            self.folds + other.folds,
            other.seed if self.seed is None else self.seed,
        )


def merged(first: tuple[tuple[Any, int], ...], second: tuple[tuple[Any, int], ...]) -> tuple[tuple[Any, int], ...]:
    """Add up two tuples of (kind, count); kinds in order, none with a count of 0."""
    total: Counter[Any] = Counter(dict(first))
    total.update(dict(second))
    return ordered(total)


def ordered(counts: Mapping[Any, int]) -> tuple[tuple[Any, int], ...]:
    """Return counts as a tuple of (kind, count), kinds in order, none with a count of 0."""
    return tuple(sorted((kind, int(count)) for kind, count in counts.items() if count))
