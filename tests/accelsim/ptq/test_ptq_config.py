import pytest

from accelsim.errors import FormatError
from accelsim.formats import IntegerFormat
from accelsim.ptq import PTQConfig


def test_defaults():
    config = PTQConfig()
    assert (config.weight_bits, config.activation_bits, config.bias_bits) == (8, 8, 32)
    assert not config.per_channel
    assert not config.power_of_two
    assert (config.weight_scheme, config.activation_scheme) == ("symmetric", "affine")
    assert config.weight_format == IntegerFormat(8, signed=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight_bits": 0}, "ptq.weight_bits must be at least 1, got 0"),
        ({"activation_bits": 17}, "ptq.activation_bits must be at most 16, got 17"),
        ({"bias_bits": 65}, "ptq.bias_bits must be at most 64, got 65"),
        (
            {"weight_range": "best"},
            "ptq.weight_range must be one of 'auto', 'mse', 'golden_section', 'closed_form', 'percentile' or 'min_max'"
            ", got 'best'",
        ),
        ({"output_range": "all"}, "ptq.output_range must be one of 'auto', 'cross_entropy' or 'same', got 'all'"),
        ({"activation_scheme": "log"}, "ptq.activation_scheme must be one of 'affine' or 'symmetric', got 'log'"),
        ({"wieght_bits": 4}, "ptq.wieght_bits is not a known key; remove it or correct its spelling"),
    ],
)
def test_a_wrong_value_is_named(values, message):
    with pytest.raises(FormatError) as caught:
        PTQConfig(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("scheme", "signed", "minimum", "expected"),
    [
        ("affine", False, -1.0, False),
        ("affine", True, 0.0, True),
        ("symmetric", False, 0.0, False),
        ("symmetric", False, -0.1, True),
        ("symmetric", True, 0.0, True),
    ],
)
def test_signedness_of_activations(scheme, signed, minimum, expected):
    config = PTQConfig(activation_scheme=scheme, activation_signed=signed, activation_bits=5)
    assert config.activation_format(minimum) == IntegerFormat(5, expected)


@pytest.mark.parametrize(("bits", "expected"), [(2, "mse"), (6, "mse"), (7, "min_max"), (16, "min_max")])
def test_auto_covers_the_whole_range_where_the_step_is_fine(bits, expected):
    assert PTQConfig().constant_method(bits) == expected
    assert PTQConfig(weight_range="mse").constant_method(bits) == "mse"
    assert PTQConfig(weight_range="min_max").constant_method(bits) == "min_max"
