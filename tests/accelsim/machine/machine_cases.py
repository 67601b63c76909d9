"""What docs/numerics.md, docs/timing.md and the design say of a machine's fields, and random valid machines."""

from hypothesis import strategies as st

import accelsim as ax

TIE_RULES = ("floor", "toward_zero", "half_up", "half_down", "half_away", "half_toward_zero", "half_even", "to_odd")
DATAFLOWS = ("broadcast", "output_stationary", "weight_stationary", "input_stationary")

# field: (default, values at the ends of its range or all its words, values outside)
FIELDS = {
    "rows": (16, (1, 4096), (0, -1, 4097)),
    "columns": (16, (1, 4096), (0, -1, 4097)),
    "dataflow": ("output_stationary", DATAFLOWS, ("row_stationary", "Broadcast", "", 3)),
    "weight_bits": (None, (1, 16, None), (0, 17)),
    "activation_bits": (None, (1, 16, None), (0, 17)),
    "accumulator_bits": (32, (4, 64), (3, 65)),
    "partial_sum_bits": (None, (4, 64, None), (3, 65)),
    "adder_tree_bits": (None, (4, 64, None), (3, 65)),
    "overflow": ("wrap", ("wrap", "saturate", "error"), ("clip", "")),
    "product_shift_bits": (0, (0, 24), (-1, 25)),
    "product_rounding": ("floor", TIE_RULES, ("nearest", "")),
    "zero_point": ("folded", ("folded", "at_input"), ("inside",)),
    "reduction_order": ("channel_first", ("channel_first", "spatial_first"), ("channel_last",)),
    "pe_latency_cycles": (1, (1, 64), (0, 65)),
    "double_buffered": (False, (False, True), ("maybe", 2)),
    "ragged_folds": ("used", ("used", "full"), ("ragged",)),
    "vector_lanes": (None, (1, 65536, None), (0, 65537)),
}

# Likewise of [memory]: all optional, all positive; the bandwidth within bounds that keep every count of cycles finite.
MEMORY_FIELDS = {
    "weight_buffer_bytes": ((1, 2**40), (0, -1)),
    "activation_buffer_bytes": ((1, 2**40), (0, -1)),
    "output_buffer_bytes": ((1, 2**40), (0, -1)),
    "dram_bytes_per_cycle": ((0.25, 1e-6, 1e9), (0, -1.5, 9.9e-7, 1e-320, 1.1e9, float("inf"), float("nan"))),
}

# The table at the end of docs/numerics.md section 5: multiplier, width, mantissa, roundings, zero point.
PRESETS = {
    "tflite": ("integer", 32, "nearest", ("half_up", "half_away"), "outside"),
    "tflite_single_rounding": ("integer", 32, "nearest", ("half_up",), "outside"),
    "tflite_int16": ("integer", 16, "shortened", ("half_up",), "outside"),
    "ruy_x86": ("integer", 32, "nearest", ("half_up", "half_up"), "outside"),
    "onnxruntime": ("float32", 32, "nearest", ("half_even",), "outside"),
    "xnnpack": ("float32", 32, "nearest", ("half_even",), "outside"),
    "onnx_reference": ("float64", 32, "nearest", ("half_even",), "inside"),
    "gemmlowp_legacy": ("integer", 32, "nearest", ("half_away",), "outside"),
    "float64_half_away": ("float64", 32, "nearest", ("half_away",), "outside"),
    "power_of_two": ("power_of_two", 32, "nearest", ("half_up",), "outside"),
    "tosa_scale32": ("integer", 32, "nearest", ("half_up",), "outside"),
    "tosa_scale32_double": ("integer", 32, "nearest", ("half_up", "half_away"), "outside"),
    "tosa_scale16": ("integer", 16, "nearest", ("half_up",), "outside"),
    "nvdla_sdp": ("integer", 16, "nearest", ("half_away",), "outside"),
    "gemmini": ("float32", 32, "nearest", ("half_even",), "outside"),
    "gemmini_shift": ("power_of_two", 32, "nearest", ("half_even",), "outside"),
    "synopsys_ev": ("integer", 16, "nearest", ("half_even",), "outside"),
    "pulp": ("integer", 32, "nearest", ("floor",), "inside"),
    "pulp_rounded": ("integer", 32, "nearest", ("half_up",), "inside"),
    "vta": ("power_of_two", 32, "nearest", ("floor",), "outside"),
    "riscv_rnu": ("power_of_two", 32, "nearest", ("half_up",), "outside"),
    "riscv_rne": ("power_of_two", 32, "nearest", ("half_even",), "outside"),
    "riscv_rdn": ("power_of_two", 32, "nearest", ("floor",), "outside"),
    "riscv_rod": ("power_of_two", 32, "nearest", ("to_odd",), "outside"),
    "ap_fixed": ("power_of_two", 32, "nearest", ("floor",), "outside"),
    "ap_trn": ("power_of_two", 32, "nearest", ("floor",), "outside"),
    "ap_trn_zero": ("power_of_two", 32, "nearest", ("toward_zero",), "outside"),
    "ap_rnd": ("power_of_two", 32, "nearest", ("half_up",), "outside"),
    "ap_rnd_inf": ("power_of_two", 32, "nearest", ("half_away",), "outside"),
    "ap_rnd_zero": ("power_of_two", 32, "nearest", ("half_toward_zero",), "outside"),
    "ap_rnd_min_inf": ("power_of_two", 32, "nearest", ("half_down",), "outside"),
    "ap_rnd_conv": ("power_of_two", 32, "nearest", ("half_even",), "outside"),
}


@st.composite
def requantizer_fields(draw):
    rules = st.sampled_from(TIE_RULES)
    fields = {"zero_point": draw(st.sampled_from(["outside", "inside"]))}
    overflows = st.sampled_from(["saturate", "saturate_to_zero", "saturate_symmetric"])
    if draw(st.booleans()):
        rounding = draw(st.lists(rules, min_size=1, max_size=2))
        if len(rounding) == 2:
            fields["pre_shift_bits"] = draw(st.integers(0, 30))
        fields["mantissa"] = draw(st.sampled_from(["nearest", "shortened"]))
        fields["overflow"] = draw(overflows | st.just("wrap"))
        return {**fields, "multiplier_bits": draw(st.integers(8, 32)), "rounding": tuple(rounding)}
    kind = draw(st.sampled_from(["float32", "float64", "power_of_two"]))
    return {**fields, "multiplier": kind, "rounding": (draw(rules),), "overflow": draw(overflows)}


@st.composite
def machine_fields(draw):
    """Some fields of a machine with valid values; the others keep their defaults."""

    def values(ends):
        numbers = [end for end in ends if isinstance(end, int) and not isinstance(end, bool)]
        if len(numbers) < 2:
            return st.sampled_from(ends)
        inner = st.integers(min(numbers), max(numbers))
        return inner | st.none() if None in ends else inner

    fields = draw(st.fixed_dictionaries({}, optional={name: values(row[1]) for name, row in FIELDS.items()}))
    sizes = st.integers(1, 2**62)
    memory = {name: sizes for name in MEMORY_FIELDS if name.endswith("_bytes")}
    bandwidth = st.floats(1e-6, 1e9) | st.integers(1, 10**9).map(float)
    if draw(st.booleans()):
        fields["memory"] = draw(st.fixed_dictionaries({}, optional={**memory, "dram_bytes_per_cycle": bandwidth}))
    if draw(st.booleans()):
        fields["requantizer"] = draw(requantizer_fields() | st.sampled_from(list(PRESETS)))
    return fields


def values_of(machine):
    """Every value of a machine by its path."""
    flat = {}
    for name in type(machine).model_fields:
        value = getattr(machine, name)
        if isinstance(value, ax.Requantizer | ax.Memory):
            flat |= {f"{name}.{key}": inner for key, inner in values_of(value).items()}
        else:
            flat[name] = value
    return flat
