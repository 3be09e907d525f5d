"""The figure for a first look, bars for tables, lines for series; what they show and refuse."""

import numpy as np
import pytest

from jaxlrp import heatmap

RNG = np.random.default_rng(2)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def pictures(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def inside(figure):
    """Whether no text leaves the page, and none overlaps another."""
    figure.draw_without_rendering()
    found = [*figure.texts, *(t for axes in figure.axes for t in axes.texts)]
    boxes = [text.get_window_extent() for text in found if text.get_text()]
    for i, box in enumerate(boxes):
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        for other in boxes[:i]:
            overlap_x = min(box.x1, other.x1) - max(box.x0, other.x0)
            overlap_y = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(overlap_x, overlap_y) <= 0


class TestShow:
    R = RNG.normal(size=(3, 8, 6, 2))

    def test_a_batch_is_a_row_with_one_scale(self):
        figure = heatmap.show(self.R, title="Why?")
        expected = heatmap.colors(self.R.sum(-1)[None], "RKHW", per="row")[0]
        np.testing.assert_array_equal(pictures(figure)[:3], expected)
        assert {"Why?", "0", "1", "2", "relevance"} <= set(texts(figure))

    @pytest.mark.parametrize(
        ("R", "layout", "images"),
        [
            (R[0, ..., 0], None, np.ones((8, 6))),
            (R[0], None, np.ones((8, 6, 3))),
            (R[..., 0], "NHW", np.ones((3, 8, 6, 3))),
            (R.reshape(3, 1, 8, 6, 2), "NMHWC", np.ones((3, 8, 6))),
        ],
    )
    def test_one_or_several_with_their_images(self, R, layout, images):
        found = pictures(heatmap.show(R, images, layout))
        count = 3 if images.shape[0] == 3 else 1
        assert len(found) == 2 * count + 1  # and the bar
        np.testing.assert_array_equal(found[count : 2 * count][0].shape, (8, 6, 3))

    def test_a_notebook_shows_figures(self):
        for figure in (heatmap.show(self.R), heatmap.bars([1.0], ["a"])):
            assert figure._repr_png_().startswith(b"\x89PNG")


class TestBars:
    def test_the_largest_come_first_and_nothing_is_left_out(self):
        R = np.array([0.5, -2.0, 1.0, 0.25, -0.125])
        figure = heatmap.bars(R, list("abcde"), values=range(5), top=3, title="Why?")
        (axes,) = figure.axes
        assert [p.get_width() for p in axes.patches] == [-2.0, 1.0, 0.625]
        assert {"b = 1", "c = 2", "the other 3", "Why?"} <= set(texts(figure))
        assert [t.get_text() for t in axes.texts] == ["−2.0", "1.0", "0.62"]
        red, blue = axes.patches[1].get_facecolor(), axes.patches[0].get_facecolor()
        assert red[0] > red[2] and blue[2] > blue[0]
        every = heatmap.bars(R, list("abcde"), top=None).axes[0].patches
        assert [p.get_width() for p in every] == [-2.0, 1.0, 0.5, 0.25, -0.125]

    def test_several_examples_give_the_mean_magnitude(self):
        R = np.array([[1.0, -4.0], [-1.0, 2.0]])
        figure = heatmap.bars(R, ["a", "b"])
        assert [p.get_width() for p in figure.axes[0].patches] == [3.0, 1.0]
        assert "mean |relevance| over 2 examples" in texts(figure)

    @pytest.mark.parametrize("sign", ["both", "for", "against", "none"])
    def test_nothing_overlaps_or_leaves_the_page(self, sign):
        R = RNG.normal(size=12) * 10.0 ** RNG.integers(-4, 5, size=12)
        R = {"both": R, "for": abs(R), "against": -abs(R), "none": 0 * R}[sign]
        names = [f"column {n} " + "long " * (3 * n) for n in range(12)]
        inside(heatmap.bars(R, names, title="title", width=3.0))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"R": np.ones((2, 2, 2))}, r"\(examples, columns\), not shape \(2, 2, 2\)"),
            ({"R": np.array([1.0, np.nan])}, "of 2 values 1 are NaN"),
            ({"names": "ab"}, "names must be 2, one for each column, not 'ab'"),
            ({"values": [1]}, "values must be 2"),
            ({"R": np.ones((3, 2)), "values": [1, 2]}, "the one example that is explained"),
            ({"top": 0}, "top must be at least 1"),
            ({"width": 0}, "width must be a positive number, not 0"),
        ],
    )
    def test_refused(self, change, message):
        arguments = {"R": np.ones(2), "names": ["a", "b"], **change}
        with pytest.raises(ValueError, match=message):
            heatmap.bars(arguments.pop("R"), arguments.pop("names"), **arguments)
        with pytest.raises(TypeError, match="floating"):
            heatmap.bars(np.ones(2, int), ["a", "b"])


class TestLines:
    times = np.linspace(0.0, 3.0, 7)
    x = np.stack([np.sin(times), 1e-5 * times], axis=1)
    R = RNG.normal(size=(7, 2))

    def test_lines_over_colours_of_one_scale(self):
        figure = heatmap.lines(self.R, self.x, names=["a", "$b$"], times=self.times, scale=2.0)
        for channel, axes in enumerate(figure.axes[:2]):
            (line,) = axes.lines
            np.testing.assert_array_equal(line.get_xdata(), self.times)
            np.testing.assert_array_equal(line.get_ydata(), self.x[:, channel])
            (strip,) = axes.images
            expected = heatmap.colors(self.R[:, channel][None], scale=2.0)
            np.testing.assert_array_equal(np.asarray(strip.get_array())[..., :3], expected)
            low, high = axes.get_ylim()
            assert low < self.x[:, channel].min() < self.x[:, channel].max() < high
        assert {"a", "$b$", "for", "against"} <= set(texts(figure))
        inside(figure)

    def test_steps_of_different_length_keep_their_places(self):
        figure = heatmap.lines(np.array([1.0, 0.0, -1.0]), np.zeros(3), times=[0.0, 1.0, 3.0])
        left, right = figure.axes[0].get_xlim()
        assert (left, right) == (-0.5, 4.0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"x": np.ones(6)}, r"not \(7,\) and \(6,\)"),
            ({"times": np.zeros(7)}, "times must be 7 rising numbers"),
            ({"names": ["a", "b"]}, "names must be 1"),
            ({"R": np.full(7, np.inf)}, "7 infinite"),
            ({"scale": 0.0}, "scale must be positive"),
            ({"height": -1.0}, "height must be a positive number"),
            ({"width": 1.0}, "has no room for lines"),
        ],
    )
    def test_refused(self, change, message):
        arguments = {"R": np.ones(7), "x": np.ones(7), **change}
        with pytest.raises(ValueError, match=message):
            heatmap.lines(arguments.pop("R"), arguments.pop("x"), **arguments)
