"""Relevance as pictures: what the colours mean, which scale they use, and what is refused."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import heatmap

WHITE = [255, 255, 255]


def lightness(colour):
    """Oklab's L of an sRGB colour: how bright it looks."""
    s = np.asarray(colour, dtype=np.float64) / 255
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [[0.4122, 0.2119, 0.0883], [0.5363, 0.6807, 0.2817], [0.0514, 0.1074, 0.6300]]
    )
    return np.cbrt(cones) @ np.array([0.2105, 0.7936, -0.0041])


class TestColours:
    def test_zero_is_white_whatever_the_scale(self):
        R = np.array([[0.0, 3.0], [-1e-3, 0.0]])
        for scale in (1e-6, 1.0, 1e6):
            painted = heatmap.colours(R, scale=scale)
            assert painted[0, 0].tolist() == WHITE
            assert painted[1, 1].tolist() == WHITE

    def test_shape_and_type(self):
        assert heatmap.colours(np.zeros((5, 7))).shape == (5, 7, 3)
        assert heatmap.colours(np.zeros((2, 5, 7, 3))).shape == (2, 5, 7, 3)
        assert heatmap.colours(np.zeros((2, 3, 5, 7)), "RKHW").shape == (2, 3, 5, 7, 3)
        assert heatmap.colours(np.zeros((5, 7))).dtype == np.uint8

    def test_for_is_red_and_against_is_blue(self):
        red, blue = heatmap.colours(np.array([[1.0, -1.0]]))[0].astype(int)
        assert red[0] > red[2] + 50
        assert blue[2] > blue[0] + 50

    def test_both_sides_are_equally_dark_and_darken_steadily(self):
        share = np.linspace(0, 1, 65)
        light_for = lightness(heatmap.colours(share[None], scale=1.0)[0])
        light_against = lightness(heatmap.colours(-share[None], scale=1.0)[0])
        np.testing.assert_allclose(light_for, light_against, atol=0.01)
        np.testing.assert_allclose(light_for, 1 - 0.62 * share, atol=0.02)

    def test_values_beyond_the_scale_take_the_last_colour(self):
        painted = heatmap.colours(np.array([[1.0, 100.0, -1.0, -100.0]]), scale=1.0)[0]
        assert painted[0].tolist() == painted[1].tolist()
        assert painted[2].tolist() == painted[3].tolist()

    def test_given_scale_per_picture(self):
        R = np.ones((2, 1, 1))
        painted = heatmap.colours(R, "NHW", scale=np.array([1.0, 2.0]))
        half = heatmap.colours(np.array([[0.5]]), scale=1.0)
        assert painted[1, 0, 0].tolist() == half[0, 0].tolist()
        assert painted[0, 0, 0].tolist() != half[0, 0].tolist()

    def test_relevance_of_nothing_is_white(self):
        assert (heatmap.colours(np.zeros((4, 4))) == 255).all()

    def test_jax_arrays_of_low_precision(self):
        R = jnp.array([[1.0, 0.0, -1.0]], dtype=jnp.bfloat16)
        expected = heatmap.colours(np.array([[1.0, 0.0, -1.0]]))
        np.testing.assert_array_equal(heatmap.colours(R), expected)


class TestChannels:
    def test_channels_are_summed_not_averaged(self):
        R = np.stack([np.full((2, 2), 1.0), np.full((2, 2), -0.25)], axis=-1)
        np.testing.assert_array_equal(heatmap.channel_sum(R, "HWC"), np.full((2, 2), 0.75))

    @pytest.mark.parametrize("layout", ["NHWC", "NCHW", "CNWH", "HNCW"])
    def test_any_order_of_axes(self, layout):
        R = np.random.default_rng(0).normal(size=(2, 5, 7, 3))
        moved = R.transpose(["NHWC".index(letter) for letter in layout])
        np.testing.assert_allclose(heatmap.channel_sum(moved, layout), R.sum(-1))

    def test_a_sum_too_large_for_float32(self):
        found = heatmap.channel_sum(np.full((2, 2, 3), 3e38, np.float32), "HWC")
        np.testing.assert_allclose(found, 9e38, rtol=1e-6)
        assert (
            heatmap.colors(found)[0, 0].tolist() == heatmap.colors(np.ones((1, 1)))[0, 0].tolist()
        )

    def test_precision_is_kept(self):
        assert heatmap.channel_sum(np.zeros((2, 2), np.float64)).dtype == np.float64
        assert heatmap.channel_sum(np.zeros((2, 2), np.float16)).dtype == np.float32


class TestScales:
    R = np.array([[[1.0, -2.0], [0.5, -8.0]]]).reshape(2, 2, 1, 1) * np.ones((1, 1, 3, 3))

    def test_per_image(self):
        np.testing.assert_array_equal(heatmap.scales(self.R, "RKHW"), [[1, 2], [0.5, 8]])

    def test_per_row(self):
        expected = [[2, 2], [8, 8]]
        np.testing.assert_array_equal(
            heatmap.scales(self.R, "RKHW", per="row", percentile=100), expected
        )

    def test_shared(self):
        expected = np.full((2, 2), 8.0)
        np.testing.assert_array_equal(
            heatmap.scales(self.R, "RKHW", per="shared", percentile=100), expected
        )

    def test_an_outlier_does_not_set_the_scale(self):
        R = np.ones((40, 40))
        R[3, 3] = 1e6
        assert heatmap.scales(R) == 1.0
        assert heatmap.scales(R, percentile=100) == 1e6

    def test_one_value_does_not_set_the_scale_of_a_small_picture(self):
        R = np.full((12, 12), 0.5)
        R[3, 3] = 1e6
        assert heatmap.scales(R) == 2.0  # a quarter of the full strength is left to the others
        assert heatmap.scales(R, percentile=100) == 1e6

    @pytest.mark.parametrize("per", ["row", "shared"])
    def test_one_picture_does_not_blank_its_row(self, per):
        R = np.ones((1, 5, 9, 9))
        R[0, 1] = 1e4
        R[0, 2] = 0.0  # and one without relevance does not count
        np.testing.assert_array_equal(heatmap.scales(R, "RKHW", per=per), np.full((1, 5), 4.0))
        R[0, 1] = 3.0
        np.testing.assert_array_equal(heatmap.scales(R, "RKHW", per=per), np.full((1, 5), 3.0))
        assert (heatmap.scales(np.zeros((1, 5, 9, 9)), "RKHW", per=per) == 0).all()

    def test_sparse_relevance_is_not_invisible(self):
        R = np.zeros((40, 40))
        R[3, 3] = -2.0
        assert heatmap.scales(R) == 2.0
        assert heatmap.colours(R)[3, 3].tolist() != WHITE


class TestRefused:
    @pytest.mark.parametrize("dtype", [int, bool, complex])
    def test_relevance_that_is_not_floating(self, dtype):
        with pytest.raises(TypeError, match="relevance must be a floating array"):
            heatmap.colours(np.ones((2, 2), dtype))

    def test_nan_and_infinity_are_counted(self):
        with pytest.raises(ValueError, match="of 4 values 1 are NaN, 2 infinite"):
            heatmap.colours(np.array([[np.nan, np.inf], [-np.inf, 0.0]]))

    @pytest.mark.parametrize("shape", [(), (4,), (4, 4, 3), (1, 1, 4, 4, 3)])
    def test_a_rank_that_says_nothing_about_its_axes(self, shape):
        with pytest.raises(ValueError, match="needs a layout, one letter per axis"):
            heatmap.colours(np.ones(shape))

    def test_layout_of_another_rank(self):
        with pytest.raises(ValueError, match="names 3 axes, but the relevance has shape"):
            heatmap.colours(np.ones((4, 4)), "HWC")

    @pytest.mark.parametrize("layout", ["HC", "HWWC", "NNHW"])
    def test_layout_without_a_picture_or_with_an_axis_twice(self, layout):
        with pytest.raises(ValueError, match="must name H and W, and no axis twice"):
            heatmap.colours(np.ones((4,) * len(layout)), layout)

    def test_empty(self):
        with pytest.raises(ValueError, match="there is nothing to draw"):
            heatmap.colours(np.ones((0, 4, 4, 3)))

    @pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
    def test_scale(self, scale):
        with pytest.raises(ValueError, match="scale must be positive and finite"):
            heatmap.colours(np.ones((4, 4)), scale=scale)

    def test_scale_of_the_wrong_shape(self):
        with pytest.raises(ValueError, match="does not broadcast to the pictures'"):
            heatmap.colours(np.ones((2, 4, 4)), "NHW", scale=np.ones(3))

    @pytest.mark.parametrize("percentile", [0, -1, 101])
    def test_percentile(self, percentile):
        with pytest.raises(ValueError, match="percentile must be above 0"):
            heatmap.colours(np.ones((4, 4)), percentile=percentile)

    def test_per(self):
        with pytest.raises(ValueError, match='per must be "image", "row" or "shared"'):
            heatmap.colours(np.ones((4, 4)), per="column")


class TestGrid:
    R = np.random.default_rng(1).normal(size=(2, 3, 8, 6))
    labels = {"row_labels": ["a", "b"], "column_labels": ["x", "y", "z"]}

    @staticmethod
    def texts(figure):
        return [text.get_text() for text in figure.texts]

    @staticmethod
    def pictures(figure):
        """What each pair of axes shows, without the colour bar, which comes last."""
        return [np.asarray(axes.images[0].get_array()) for axes in figure.axes[:-1]]

    def test_every_cell_shows_its_map_at_its_rows_scale(self):
        figure = heatmap.grid(self.R, **self.labels)
        expected = heatmap.colours(self.R, "RKHW", per="row").reshape(6, 8, 6, 3)
        np.testing.assert_array_equal(self.pictures(figure), expected)

    def test_labels_and_scales_are_written(self):
        R = np.stack([np.full((3, 8, 6), 0.4), np.full((3, 8, 6), -12.3)])
        texts = self.texts(heatmap.grid(R, **self.labels, title="why"))
        assert {"why", "a", "b", "x", "y", "z", "±0.40", "±12", "for", "against"} <= set(texts)

    def test_images_come_first_and_are_outlined(self):
        images = np.zeros((3, 8, 6))
        images[:, 2:5, 2:5] = 1.0
        figure = heatmap.grid(self.R, **self.labels, images=images)
        np.testing.assert_array_equal(self.pictures(figure)[:3], images)
        assert [len(axes.collections) for axes in figure.axes[3:-1]] == [1] * 6
        plain = heatmap.grid(self.R, **self.labels, images=images, outline=False)
        assert not any(axes.collections for axes in plain.axes)

    def test_grey_images_are_photographs_unless_they_are_ink(self):
        images = np.zeros((3, 8, 6))
        images[:, 2:5, 2:5] = 1.0
        for photographs, name in ((None, "gray"), (True, "gray"), (False, "gray_r")):
            options = {} if photographs is None else {"photographs": photographs}
            figure = heatmap.grid(self.R, **self.labels, images=images, **options)
            assert figure.axes[0].images[0].get_cmap().name == name

    def test_another_palette_is_that_of_the_bars_too(self):
        for options in ({"color_map": "seismic"}, {"colour_map": "seismic", "row_bars": True}):
            figure = heatmap.grid(self.R, **self.labels, **options)
            expected = heatmap.colors(self.R, "RKHW", per="row", color_map="seismic")
            np.testing.assert_array_equal(self.pictures(figure)[0], expected[0, 0])
            ends = heatmap.colors(np.array([[1.0, -1.0]]), color_map="seismic", scale=1.0)[0]
            bar = np.asarray(figure.axes[-1].images[0].get_array()).reshape(-1, 3)
            assert {tuple(bar[0]), tuple(bar[-1])} == set(map(tuple, ends))
        with pytest.raises(ValueError, match="give color_map alone"):
            heatmap.grid(self.R, **self.labels, color_map="bwr", colour_map="bwr")

    def test_labels_are_text_and_nothing_else(self, tmp_path):
        figure = heatmap.grid(
            {0: self.R, 1: -self.R},
            row_labels=["$5 and $6", 7],
            column_labels=["\ud800", "\u202etxt", b"\xff"],
            title="costs $x_{$",
        )
        found = self.texts(figure)
        assert {"0", "1", "7", "$5 and $6", "\\ud800", "\\xff", "costs $x_{$"} <= set(found)
        assert not any("\u202e" in text for text in found)
        figure.savefig(tmp_path / "grid.png")
        figure.savefig(tmp_path / "grid.svg")

    def test_long_column_labels_are_cut_in_the_middle(self):
        labels = ["a column with a long name 1", "a column with a long name 2", "c"]
        figure = heatmap.grid(self.R, row_labels=["a", "b"], column_labels=labels)
        figure.draw_without_rendering()
        cut = [t for t in figure.texts if "…" in t.get_text()]
        assert [t.get_text()[-1] for t in cut] == ["1", "2"]
        first, second = (t.get_window_extent() for t in cut)
        assert first.x1 <= second.x0

    def test_blocks_have_their_own_column_labels(self):
        figure = heatmap.grid(
            {"first": self.R, "second": -self.R},
            row_labels=["a", "b"],
            column_labels={"first": ["x", "y", "z"], "second": ["u", "v", "w"]},
        )
        assert {"first", "second", *"xyzuvw"} <= set(self.texts(figure))
        assert len(self.pictures(figure)) == 12

    def test_it_can_be_saved_and_leaves_pyplot_alone(self, tmp_path):
        loaded = "matplotlib.pyplot" in sys.modules
        heatmap.grid(self.R[..., None], **self.labels).savefig(tmp_path / "grid.png")
        assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
        assert ("matplotlib.pyplot" in sys.modules) == loaded

    @pytest.mark.parametrize("row_bars", [False, True])
    def test_nothing_overlaps_or_leaves_the_page(self, row_bars):
        figure = heatmap.grid(
            {"first": 2345 * self.R, "second": self.R / 2345},
            **self.labels,
            images=np.ones((3, 8, 6, 1)),
            title="why",
            row_bars=row_bars,
        )
        figure.draw_without_rendering()
        boxes = [axes.get_window_extent() for axes in figure.axes]
        boxes += [text.get_window_extent() for text in figure.texts]
        if row_bars:
            bars = [axes for axes in figure.axes if len(axes.get_yticks()) == 3]
            boxes += [t.get_window_extent() for bar in bars for t in bar.get_yticklabels()]
        for i, box in enumerate(boxes):
            assert min(box.x0, box.y0) >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1
            for other in boxes[:i]:
                overlap_x = min(box.x1, other.x1) - max(box.x0, other.x0)
                overlap_y = min(box.y1, other.y1) - max(box.y0, other.y0)
                assert min(overlap_x, overlap_y) <= 0

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"R": np.ones((8, 6))}, r"grid wants \(rows, columns, H, W\)"),
            ({"R": {}}, "the mapping is empty"),
            (
                {"R": {"a": np.ones((2, 3, 8, 6)), "b": np.ones((2, 3, 8, 7))}},
                "must have one shape",
            ),
            ({"row_labels": ["a"]}, "row_labels must be a sequence of 2"),
            ({"column_labels": "xyz"}, "column_labels must be a sequence of 3"),
            ({"column_labels": {"other": ["x", "y", "z"]}}, "column_labels names the blocks"),
            ({"images": np.ones((2, 8, 6))}, "do not fit 3 columns"),
            ({"images": np.full((3, 8, 6), np.nan)}, "images hold NaN"),
            ({"layout": "NHWC"}, "must have rows and columns"),
            ({"cell": 0}, "cell must be a positive number, not 0"),
        ],
    )
    def test_refused(self, change, message):
        arguments = {"R": self.R, **self.labels, **change}
        with pytest.raises(ValueError, match=message):
            heatmap.grid(arguments.pop("R"), **arguments)

    def test_row_bars_show_each_rows_scale(self):
        """The scale survives an outlier, and the bar's colours are those of the maps."""
        R = np.stack([np.full((3, 40, 30), 0.4), np.full((3, 40, 30), -12.3)])
        R[0, 1, 3, 3] = 1e6
        figure = heatmap.grid(R, **self.labels, row_bars=True)
        bars = [axes for axes in figure.axes if len(axes.get_yticks()) == 3]
        assert [[t.get_text() for t in bar.get_yticklabels()] for bar in bars] == [
            ["+0.40", "0", "−0.40"],
            ["+12", "0", "−12"],
        ]
        first, second = (np.asarray(bar.images[0].get_array())[:, 0] for bar in bars)
        np.testing.assert_array_equal(first, second)
        ends = heatmap.colours(np.array([[1.0], [0.0], [-1.0]]), scale=1.0)[:, 0]
        np.testing.assert_array_equal(first[[0, 200, 400]], ends)
        shown = [np.asarray(a.images[0].get_array()) for a in figure.axes if a not in bars]
        assert len(shown) == 6  # no bar below
        # Every 0.4 has the colour of the bar's upper end, beside the outlier too.
        np.testing.assert_array_equal(shown[1], np.broadcast_to(ends[0], (40, 30, 3)))
        np.testing.assert_array_equal(shown[3], np.broadcast_to(ends[2], (40, 30, 3)))

    def test_a_row_of_zeros_has_no_bar(self):
        R = np.stack([np.zeros((3, 8, 6)), np.ones((3, 8, 6))])
        figure = heatmap.grid(R, **self.labels, row_bars=True)
        assert sum(len(axes.get_yticks()) == 3 for axes in figure.axes) == 1

    def test_row_bars_want_one_scale_for_a_row(self):
        options = {**self.labels, "row_bars": True}
        heatmap.grid(self.R, **options, per="shared")
        heatmap.grid(self.R, **options, scale=np.array([[1.0], [2.0]]))
        for wrong in ({"per": "image"}, {"scale": np.arange(1.0, 7.0).reshape(2, 3)}):
            with pytest.raises(ValueError, match="row_bars wants one scale"):
                heatmap.grid(self.R, **options, **wrong)

    def test_without_matplotlib_the_message_names_the_extra(self, monkeypatch):
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r"pip install 'jaxlrp\[examples\]'"):
            heatmap.grid(self.R, **self.labels)
        assert heatmap.colours(np.ones((2, 2))).shape == (2, 2, 3)
