"""Heterogeneous bit-widths: which layers and tensors differ from the rest of the network (white paper section 2.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from accelsim.errors import FormatError
from accelsim.graph.graph import Graph
from accelsim.graph.operators import ACTIVATIONS, LINEAR
from accelsim.ptq.config import LayerBits
from accelsim.ptq.placement import Placement

_NAMES_SHOWN = 3


@dataclass(frozen=True)
class BitWidths:
    """Widths of their own of some layers and tensors.

    Parameters
    ----------
    weights : mapping of node name to int
        Of a linear layer's weights.
    activations : mapping of tensor name to int
        Of tensors with a quantizer of their own, and of every tensor that shares it or ends in it.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    activations: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, placement: Placement, layers: Mapping[str, LayerBits]) -> BitWidths:
        """Find what the names of a configuration stand for.

        Parameters
        ----------
        graph : Graph
            The network with batch norms folded.
        placement : Placement
            Its quantizers.
        layers : mapping of node or tensor name to LayerBits
            What was asked for.

        Returns
        -------
        BitWidths
            The width given to a node is that of the stored tensor that its layer makes, behind a fused activation
            function; the width given to a tensor is that of the stored tensor that it ends in or shares a quantizer
            with.

        Raises
        ------
        FormatError
            When the network has no such name, a width of weights is asked of something without weights, or two names
            ask for different widths of one quantizer.
        """
        owners = _owners(graph, placement)
        nodes = {node.name: node for node in graph.nodes}
        weights: dict[str, int] = {}
        asked: dict[str, tuple[str, int]] = {}
        for name, bits in layers.items():
            node = nodes.get(name)
            tensor = node.output if node is not None else name
            if tensor not in owners:
                raise FormatError(f"ptq.layers: {_unknown(name, [*nodes, *graph.shapes])}")
            if bits.weight_bits is not None:
                if node is None or node.op not in LINEAR:
                    what = "a tensor" if node is None else f"a node ({node.op})"
                    some = _some(other.name for other in graph.nodes if other.op in LINEAR)
                    raise FormatError(
                        f"ptq.layers: {name!r} is {what} without weights, so weight_bits does nothing; name {some}"
                    )
                weights[name] = bits.weight_bits
            if bits.activation_bits is not None:
                owner = owners[tensor]
                other, width = asked.setdefault(owner, (name, bits.activation_bits))
                if width != bits.activation_bits:
                    raise FormatError(
                        f"ptq.layers: {other!r} and {name!r} share the quantizer of tensor {owner!r}, but ask for "
                        f"{width} and {bits.activation_bits} activation_bits; give one"
                    )
        widths = {tensor: asked[owner][1] for tensor, owner in owners.items() if owner in asked}
        return cls(weights, widths)


def _owners(graph: Graph, placement: Placement) -> dict[str, str]:
    """Return the tensor whose quantizer each tensor is stored with, in the end."""
    own = {*placement.calibrated, *placement.fixed}
    owners = {tensor.name: tensor.name for tensor in graph.inputs}
    for node in graph.nodes:
        name = node.output
        if name not in own and name not in placement.shared:  # it lives inside its layer
            (follower,) = graph.consumers(name)
            assert follower.op in ACTIVATIONS
            name = follower.output
        owners[node.output] = placement.shared.get(name, name)
    return owners


def _unknown(name: str, known: list[str]) -> str:
    """Say that there is no such name, with the nearest ones."""
    near = get_close_matches(name, known, n=_NAMES_SHOWN, cutoff=0.5)
    hint = f"did you mean {_some(near)}?" if near else f"there are {_some(known)}"
    return f"the network has no node or tensor {name!r} (with batch norms folded); {hint}"


def _some(names: Iterable[str]) -> str:
    listed = [repr(name) for name in names]
    return ", ".join(listed[:_NAMES_SHOWN]) + (", ..." if len(listed) > _NAMES_SHOWN else "")
