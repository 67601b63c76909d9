"""One convolution on the grid, with everything that can be seen of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.arrays import whole_number
from accelsim.errors import OperandError
from accelsim.machine import Machine
from accelsim.program.geometry import Geometry
from accelsim.simulator.engine.activity import Sampling, ToggleCounter, count_convolution
from accelsim.simulator.engine.convolution import run_convolution
from accelsim.simulator.engine.events import EventArrays
from accelsim.simulator.engine.gemm import EngineName, Int64, Track
from accelsim.simulator.engine.gemm_operands import TYPE_ENDS, GemmValues
from accelsim.simulator.engine.nonzero_weights import NonzeroWeights
from accelsim.simulator.engine.zeros import ZeroCounter
from accelsim.simulator.gemm import checked_machine, refuse_overflow, tracking_level
from accelsim.simulator.gemm_result import GemmAccount, GemmResult
from accelsim.simulator.operands import gemm_operands, integer_array, operand, start_values, zero_points

_LONGEST_STEP = 1 << 16
"""Greatest stride, dilation and padding of a convolution."""

_REST = {"counts": 0, "first": -1, "partial": 0}
"""Arrays of events, and what they hold of outputs without any."""


def conv2d(
    activations: npt.ArrayLike,
    weights: npt.ArrayLike,
    machine: Machine | None = None,
    *,
    bias: npt.ArrayLike | None = None,
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilations: tuple[int, int] = (1, 1),
    groups: int = 1,
    weight_zero_point: npt.ArrayLike = 0,
    activation_zero_point: int = 0,
    engine: EngineName = "fast",
    track: Track = "overflow",
    activity: bool = False,
) -> GemmResult:
    """Convolve stored integers on the machine's grid; padded taps hold the activations' zero point.

    Parameters
    ----------
    activations : integer array, shape (batch, channels, height, width)
        Stored activations of at most 16 bits.
    weights : integer array, shape (n, channels / groups, kernel rows, kernel columns)
        Stored weights of at most 16 bits.
    machine : Machine, optional
        Grid, dataflow, widths; ``edge_16x16`` when left out.
    bias : integer array, shape (n,), optional
        In accumulator units.
    strides, dilations : pair of int
        (rows, columns), at least 1.
    pads : four int
        Padding at the top, left, bottom and right, at least 0.
    groups : int
        Groups of channels, run one after the other.
    weight_zero_point, activation_zero_point, engine, track, activity
        As in `matmul`.

    Returns
    -------
    GemmResult
        Arrays of shape (batch, n, rows, columns).

    Raises
    ------
    OperandError
        When an array has the wrong type, shape or values, or an option is unknown.
    AccumulatorOverflowError
        When a register overflowed and the machine's mode is ``error``.
    """
    machine = checked_machine(machine, engine, track)
    images, kernels = integer_array("activations", activations, 4), integer_array("weights", weights, 4)
    groups = whole_number("groups", groups, 1)
    geometry = _conv_geometry(images.shape, kernels.shape, strides, pads, dilations, groups)
    num_outputs = kernels.shape[0]
    ordered = kernels.transpose(0, 2, 3, 1) if machine.reduction_order == "spatial_first" else kernels
    rows = operand("weights", np.ascontiguousarray(ordered).reshape(num_outputs, -1), machine.weight_bits, kept="bh")
    stored = operand("activations", images, machine.activation_bits, kept="BbhH")
    zero_point = _activation_zero_point(activation_zero_point)
    biases = start_values(bias, num_outputs)
    weight_zeros = zero_points("weight_zero_point", weight_zero_point, num_outputs)
    per_group = num_outputs // groups
    fed, pad_value = _fed(stored, zero_point, machine)
    empty = np.empty((geometry.reduction, 0), dtype=np.int32)
    operands = [
        gemm_operands(rows[part], empty, biases[part], weight_zeros[part], zero_point, machine)
        for part in (slice(g * per_group, (g + 1) * per_group) for g in range(groups))
    ]
    level, batch = tracking_level(track, machine), images.shape[0]
    pieces = _Pieces((batch, num_outputs, geometry.num_positions))
    for group, begin, _, values in run_convolution(
        fed, operands, geometry, pad_value, machine, engine, level, "conv2d"
    ):
        refuse_overflow(values, machine, "conv2d")
        pieces.add(values, group * per_group, begin)
    weights_fed, zero_points_left, start = (
        np.concatenate([getattr(part, name) for part in operands])
        for name in ("weights", "weight_zero_points", "start")
    )
    zeros = ZeroCounter(NonzeroWeights.of(weights_fed, groups), machine.reduction_order == "spatial_first")
    zeros.add_images(fed, geometry, pad_value)
    total = batch * geometry.num_positions
    account = GemmAccount(
        machine, weights_fed, zero_points_left, total, (int(fed.min()), int(fed.max())), zeros.nonzero(),
        images.size // groups,
    )  # fmt: skip
    toggles = None
    if activity:
        counter = ToggleCounter(weights_fed.astype(np.int32), start, groups, total, machine, account.widths, Sampling())
        count_convolution(counter, fed.astype(np.int32), geometry, pad_value, "conv2d")
        toggles = counter.toggles()
    shape = (batch, num_outputs, *geometry.output_shape)
    accumulators, range_min, range_max = (
        pieces.array(name, shape) for name in ("accumulators", "range_min", "range_max")
    )
    assert accumulators is not None
    events = pieces.events(shape) if track != "none" else None
    return GemmResult(accumulators, events, range_min, range_max, account, None, toggles)


class _Pieces:
    """Values of a convolution, put together from those of some channels at some positions.

    Parameters
    ----------
    shape : tuple of int
        Images, channels, positions of an image.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.arrays: dict[str, Int64] = {}

    def add(self, values: GemmValues, first_channel: int, begin: int) -> None:
        """Take in the values of the channels from one on, at the positions from ``begin`` on, over all images."""
        found = {name: getattr(values, name) for name in ("accumulators", "range_min", "range_max")}
        if values.events is not None and not values.events.nowhere:
            found |= {name: getattr(values.events, name) for name in _REST}
        for name, part in found.items():
            if part is not None:
                self._put(name, part, first_channel, begin)

    def _put(self, name: str, part: Int64, first_channel: int, begin: int) -> None:
        if name not in self.arrays:
            self.arrays[name] = np.full(self.shape, _REST[name]) if name in _REST else np.empty(self.shape, np.int64)
        whole, (channels, count), per_image = self.arrays[name], part.shape, self.shape[2]
        done = 0
        while done < count:
            image, place = divmod(begin + done, per_image)
            images = (count - done) // per_image if place == 0 else 0
            size = images * per_image if images else min(per_image - place, count - done)
            some = part[:, done : done + size].reshape(channels, max(images, 1), -1)
            end = place + some.shape[2]
            target = whole[image : image + max(images, 1), first_channel : first_channel + channels, place:end]
            target[:] = some.transpose(1, 0, 2)
            done += size

    def array(self, name: str, shape: tuple[int, ...]) -> Int64 | None:
        """Return an array in a shape of as many values; None where there is none."""
        return self.arrays[name].reshape(shape) if name in self.arrays else None

    def events(self, shape: tuple[int, ...]) -> EventArrays:
        """Return the events in a shape."""
        counts, first, partial = (self.array(name, shape) for name in _REST)
        if counts is None or first is None or partial is None:
            return EventArrays.none(shape)
        return EventArrays(counts, first, partial)


def _fed(stored: npt.NDArray[Any], zero_point: int, machine: Machine) -> tuple[npt.NDArray[Any], int]:
    """Return activations as the PEs multiply them and what a padded tap holds, in a narrow type where both fit one."""
    low, high = TYPE_ENDS[stored.dtype.char]
    if machine.zero_point == "folded":
        return stored if low <= zero_point <= high else stored.astype(np.int32), zero_point
    if zero_point == 0:
        return stored, 0
    least, greatest = TYPE_ENDS["h"]
    fits = least <= low - zero_point and high - zero_point <= greatest
    return np.subtract(stored, zero_point, dtype=np.int32).astype(np.int16 if fits else np.int32, copy=False), 0


def _activation_zero_point(value: int) -> int:
    return int(zero_points("activation_zero_point", value, 1)[0])


def _window_part(name: str, values: Any, count: int, least: int) -> tuple[Any, ...]:
    """Return strides, dilations or pads as ints; raise OperandError for anything else."""
    try:
        if len(values) == count:
            return tuple(whole_number(name, value, least, _LONGEST_STEP) for value in values)
    except (TypeError, OperandError):
        pass
    raise OperandError(
        f"{name} must be {count} whole numbers of at least {least} and at most {_LONGEST_STEP}, got {values!r}"
    )


def _conv_geometry(
    images: tuple[int, ...],
    kernels: tuple[int, ...],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
    groups: int,
) -> Geometry:
    """Return the convolution's geometry; raise OperandError where it has none."""
    strides = _window_part("strides", strides, 2, 1)
    dilations = _window_part("dilations", dilations, 2, 1)
    pads = _window_part("pads", pads, 4, 0)
    channels, height, width = images[1:]
    num_outputs, group_channels, *kernel = kernels
    if channels != group_channels * groups or num_outputs % groups:
        raise OperandError(
            f"weights {kernels} do not fit {channels} channels in {groups} groups: need shape "
            f"(a multiple of {groups}, {channels / groups:g}, rows, columns)"
        )
    output = tuple(
        Geometry.convolved(length, kernel[axis], strides[axis], pads[axis], pads[axis + 2], dilations[axis])
        for axis, length in enumerate((height, width))
    )
    if min(output) < 1:
        raise OperandError(f"a kernel of {tuple(kernel)} does not fit {height}x{width} with pads {pads}")
    return Geometry.of((channels, height, width), tuple(kernel), strides, pads, dilations, output, groups)
