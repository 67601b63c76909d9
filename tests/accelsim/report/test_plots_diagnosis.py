import numpy as np
import pytest

import accelsim as ax
from accelsim.errors import DataError
from accelsim.report.plots_diagnosis import channel_ranges, save_diagnosis_figures, sensitivity_bars
from tests.accelsim.ptq.ptq_networks import conv_net


@pytest.fixture(scope="module")
def found():
    images = np.random.default_rng(1).normal(size=(16, 3, 6, 6)).astype(np.float32)
    return ax.diagnose(conv_net(np.random.default_rng(0)), images, ax.PTQConfig(weight_bits=3))


def test_every_tensor_has_a_bar_of_its_noise(found):
    axes = sensitivity_bars(found).axes[0]
    bars = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axes.patches}
    ranked = sorted(found.sensitivities, key=lambda one: one.sqnr_db)
    assert [bars[place] for place in range(len(bars))] == [one.sqnr_db for one in ranked][: len(bars)]
    assert axes.get_yticklabels()[0].get_text() == f"{ranked[0].layer} ({ranked[0].bits} bits)"
    assert len(sensitivity_bars(found, most=3).axes[0].patches) == 3


def test_every_channel_has_a_bar_of_its_range(found):
    for one in found.sensitivities[:4]:
        axes = channel_ranges(one).axes[0]
        ends = np.array([[bar.get_y(), bar.get_y() + bar.get_height()] for bar in axes.patches])
        np.testing.assert_allclose(ends, np.stack([one.ranges.low, one.ranges.high], axis=1), atol=1e-12)
        np.testing.assert_array_equal(axes.lines[1].get_ydata(), one.ranges.grid_high)
        assert one.layer in axes.get_title()


def test_files_are_named_after_their_place_and_layer(found, tmp_path):
    made = save_diagnosis_figures(found, tmp_path / "a" / "b", most=2, ending=".svg")
    assert made == sorted((tmp_path / "a" / "b").iterdir(), key=lambda path: path.name != "sensitivity.svg")
    assert made[1].name.startswith("1_")
    before = [path.read_bytes() for path in made]
    save_diagnosis_figures(found, tmp_path / "a" / "b", most=2, ending=".svg")
    assert [path.read_bytes() for path in made] == before
    with pytest.raises(DataError, match=r"must end in"):
        save_diagnosis_figures(found, tmp_path, ending=".gif")
