import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptq_networks import Net, conv_net, run_float

from accelsim.errors import CalibrationError
from accelsim.graph.feeds import Feeds
from accelsim.ptq.calibration import TensorStatistics, calibrate
from accelsim.ptq.folding import fold
from accelsim.ptq.placement import place_quantizers
from accelsim.reference.batches import BATCH_BYTES, LARGEST_BATCH, samples_per_batch

NET = fold(conv_net(np.random.default_rng(0))).graph
TENSORS = place_quantizers(NET).calibrated
CONVOLVED = ("image", "r1", "r2", "sum")  # what convolutions and element-wise layers make, but no matrix product
IMAGES = np.random.default_rng(1).normal(size=(23, 3, 6, 6)).astype(np.float32)


def test_range_is_least_and_greatest_value_of_the_float_network():
    found = calibrate(NET, TENSORS, Feeds(NET, IMAGES), histograms=False)
    values = {"image": IMAGES, **run_float(NET, IMAGES, TENSORS[1:])}
    assert set(found) == set(TENSORS)
    for name in CONVOLVED:
        assert (found[name].low, found[name].high) == (values[name].min(), values[name].max())
        assert found[name].histogram is None


@settings(max_examples=20)
@given(st.integers(1, 30), st.booleans())
def test_batch_size_does_not_matter(batch_size, histograms):
    """ONNX Runtime convolves sample by sample, so not even the last bit depends on the batch."""
    whole = calibrate(NET, CONVOLVED, Feeds(NET, IMAGES), histograms)
    split = calibrate(NET, CONVOLVED, Feeds(NET, IMAGES), histograms, batch_size=batch_size)
    for name in CONVOLVED:
        assert (whole[name].low, whole[name].high) == (split[name].low, split[name].high)
        if histograms:
            np.testing.assert_array_equal(whole[name].histogram.counts, split[name].histogram.counts)
            # Sums in another order: a last bit of float64 in the mean may be a last bit of the stored float32.
            np.testing.assert_allclose(whole[name].histogram.values, split[name].histogram.values, rtol=1.2e-7)


def test_histogram_counts_all_values_but_zeros():
    found = calibrate(NET, TENSORS, Feeds(NET, IMAGES), histograms=True)
    values = run_float(NET, IMAGES, ["r1"])["r1"]
    assert found["r1"].histogram.counts.sum() == np.count_nonzero(values)
    assert found["image"].histogram.counts.sum() == IMAGES.size


def test_a_constant_tensor_has_a_range_but_no_histogram():
    net = Net(x=(2,))
    net.add("Mul", "x", "y", [[0.0, 0.0]])
    graph = net.graph("y")
    found = calibrate(graph, ["x", "y"], Feeds(graph, np.ones((3, 2))), histograms=True)
    for name, value in (("x", 1.0), ("y", 0.0)):
        assert (found[name].low, found[name].high, found[name].histogram) == (value, value, None)


def test_samples_per_batch_keeps_all_activations_under_the_budget():
    sample_bytes = 4 * sum(int(np.prod(shape[1:])) for shape in NET.shapes.values())
    for samples in (1, 2, 7, 100):
        assert samples_per_batch(NET, budget=samples * sample_bytes) == samples
        assert samples_per_batch(NET, budget=(samples + 1) * sample_bytes - 1) == samples
    assert samples_per_batch(NET, budget=1) == 1
    assert samples_per_batch(NET, budget=BATCH_BYTES) == LARGEST_BATCH


def test_memory_does_not_grow_with_the_number_of_images():
    net = Net(x=(4, 64, 64))
    net.add("Relu", "x", "r")
    net.add("Sigmoid", "r", "y")
    graph = net.graph("y")

    def peak(num_samples):
        # One image that claims to be many: the data itself takes no memory.
        images = np.broadcast_to(np.random.default_rng(0).normal(size=(1, 4, 64, 64)), (num_samples, 4, 64, 64))
        tracemalloc.start()
        calibrate(graph, ["x", "r", "y"], Feeds(graph, images), histograms=True, batch_size=8)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return taken

    peak(8)  # imports and caches
    assert peak(96) <= 1.1 * peak(16)


def test_progress_counts_both_passes():
    calls = []
    calibrate(NET, TENSORS, Feeds(NET, IMAGES), True, lambda *call: calls.append(call), batch_size=10)
    assert calls == [("calibration", done, 46) for done in (10, 20, 23, 33, 43, 46)]


@pytest.mark.parametrize("scale", [3e38, -3e38])
def test_an_activation_that_overflows_is_named(scale):
    net = Net(x=(1, 2))
    net.add("Conv", "x", "big", [np.full((1, 1, 1), scale)])
    net.add("Relu", "big", "y")
    graph = net.graph("big", "y")
    with pytest.raises(CalibrationError, match=r"'big' must be finite"):
        calibrate(graph, ["x", "big", "y"], Feeds(graph, np.full((2, 1, 2), 10.0)), histograms=False)


def test_images_that_are_not_finite_are_refused():
    images = IMAGES.copy()
    images[17, 0, 0, 0] = np.nan
    with pytest.raises(CalibrationError, match=r"calibration data: input 'image' must be finite"):
        calibrate(NET, TENSORS, Feeds(NET, images), histograms=False)


def test_widening_a_range_drops_the_histogram_that_could_narrow_it_again():
    statistics = calibrate(NET, ["r1"], Feeds(NET, IMAGES), histograms=True)["r1"]
    assert statistics.widened(()) is statistics
    wide = statistics.widened((-2.0, 1e6))
    assert (wide.low, wide.high, wide.histogram) == (-2.0, 1e6, None)
    assert isinstance(wide, TensorStatistics)
