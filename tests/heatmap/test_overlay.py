"""Relevance over photographs: numbers of pixels, and what is refused."""

import numpy as np
import pytest

from jaxlrp import heatmap

GREY = np.array([[0, 255], [128, 64]], np.uint8)


class TestOverlay:
    def test_without_relevance_the_photograph_is_there_the_right_way_round(self):
        found = heatmap.overlay(np.zeros((2, 2)), GREY, fade=0.0)
        np.testing.assert_array_equal(found, np.repeat(GREY[..., None], 3, -1))
        pale = heatmap.overlay(np.zeros((2, 2)), GREY, fade=0.5)[..., 0]
        np.testing.assert_array_equal(pale, [[128, 255], [192, 160]])

    def test_at_full_strength_the_colour_stands_alone(self):
        R = np.array([[1.0, -1.0], [0.0, 0.25]])
        found = heatmap.overlay(R, GREY, scale=1.0, fade=0.0)
        colours = heatmap.colours(R, scale=1.0)
        np.testing.assert_array_equal(found[0], colours[0])
        # A quarter of the scale covers half of the photograph.
        half = np.rint((64 + colours[1, 1].astype(float)) / 2)
        np.testing.assert_allclose(found[1, 1], half, atol=1)

    def test_integers_floats_and_colour_mean_the_same(self):
        R = np.random.default_rng(0).normal(size=(2, 2))
        expected = heatmap.overlay(R, GREY)
        for image in (GREY / 255, GREY.astype(np.float32), np.repeat(GREY[..., None], 3, -1)):
            np.testing.assert_allclose(heatmap.overlay(R, image), expected, atol=1)

    def test_batches_channel_first_and_one_photograph_for_several_maps(self):
        rng = np.random.default_rng(0)
        R, images = rng.normal(size=(3, 2, 4, 5, 3)), rng.uniform(size=(2, 4, 5, 3))
        found = heatmap.overlay(R, images, "MNHWC")
        assert found.shape == (3, 2, 4, 5, 3)
        one = heatmap.overlay(R[1, 0], images[0], "HWC")
        np.testing.assert_array_equal(found[1, 0], one)
        first = heatmap.overlay(
            R.transpose(0, 1, 4, 2, 3), images.transpose(0, 3, 1, 2), "MNCHW", image_layout="NCHW"
        )
        np.testing.assert_array_equal(first, found)

    def test_a_constant_map_and_an_outlier(self):
        np.testing.assert_array_equal(
            heatmap.overlay(np.ones((2, 2)), GREY), heatmap.colours(np.ones((2, 2)))
        )
        R = np.full((20, 20), 0.5)
        R[0, 0] = 1e6
        shown = heatmap.overlay(R, np.zeros((20, 20)))
        np.testing.assert_array_equal(shown[5, 5], shown[0, 0])

    @pytest.mark.parametrize(
        ("R", "images", "options", "message"),
        [
            (np.full((2, 2), np.nan), GREY, {}, "cannot be drawn"),
            (np.ones((2, 2)), np.full((2, 2), np.nan), {}, "images hold NaN"),
            (np.ones((2, 2)), GREY - 300.0, {}, "as they were before any normalisation"),
            (np.ones((2, 2)), np.ones((2, 3)), {}, "do not fit maps"),
            (np.ones((2, 2)), np.ones((2, 2, 5)), {}, "5 channels"),
            (np.ones((2, 2)), np.ones(4), {}, "need an image_layout"),
            (np.ones((2, 2)), GREY, {"fade": 2}, "fade must be between 0 and 1"),
        ],
    )
    def test_refused(self, R, images, options, message):
        with pytest.raises(ValueError, match=message):
            heatmap.overlay(R, images, **options)


class TestContour:
    def test_the_line_is_around_what_holds_the_share(self):
        R = np.zeros((20, 20))
        R[5:12, 6:15] = 1.0
        R[0, 0] = -5.0
        found = heatmap.contour(R, np.zeros((20, 20)), share=0.999, smooth=1, width=1)
        red = (found != 0).any(-1)
        expected = np.zeros((20, 20), bool)
        expected[5:12, 6:15] = True
        expected[6:11, 7:14] = False
        np.testing.assert_array_equal(red, expected)

    def test_an_outlier_does_not_have_it_all(self):
        R = np.zeros((20, 20))
        R[5:12, 6:15] = 1.0
        expected = heatmap.contour(R, np.zeros((20, 20)), share=0.9, smooth=1)
        R[0, 0] = 1e6
        found = heatmap.contour(R, np.zeros((20, 20)), share=0.9, smooth=1)
        np.testing.assert_array_equal(found[2:], expected[2:])

    def test_batches_and_maps_without_positive_relevance(self):
        R = np.stack([-np.ones((6, 6)), np.eye(6)])
        found = heatmap.contour(R, np.full((2, 6, 6), 0.5), "NHW", image_layout="NHW")
        np.testing.assert_array_equal(found[0], np.full((6, 6, 3), 128))
        assert (found[1] != 128).any()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"share": 1.0}, "share must be between"),
            ({"smooth": 4}, "smooth must be an odd"),
            ({"width": 0}, "width must be at least"),
        ],
    )
    def test_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            heatmap.contour(np.ones((2, 2)), GREY, **options)


class TestRanked:
    def test_ranks_keep_the_sign_and_zero(self):
        R = np.array([[[3.0, -1.0], [0.0, 1.0]], [[30.0, -10.0], [0.0, 20.0]]])
        per_image = heatmap.ranked(R, "NHW")
        np.testing.assert_allclose(per_image[0], [[1, -2 / 3], [0, 2 / 3]])
        np.testing.assert_allclose(per_image[1], [[1, -1 / 3], [0, 2 / 3]])
        shared = heatmap.ranked(R, "NHW", per="shared")
        np.testing.assert_allclose(shared[0], [[3 / 6, -2 / 6], [0, 2 / 6]])

    def test_constant_and_empty_maps(self):
        np.testing.assert_array_equal(heatmap.ranked(np.ones((2, 2))), np.ones((2, 2)))
        np.testing.assert_array_equal(heatmap.ranked(np.zeros((2, 2))), np.zeros((2, 2)))


class TestColourMaps:
    def test_by_name(self):
        found = heatmap.colours(np.array([[-1.0, 0.0, 1.0]]), colour_map="bwr")
        np.testing.assert_array_equal(found[0], [[0, 0, 255], [255, 255, 255], [255, 0, 0]])

    def test_an_unknown_name(self):
        with pytest.raises(ValueError, match="not known to matplotlib"):
            heatmap.colours(np.ones((2, 2)), colour_map="rainbows")


def test_grey_photographs_in_a_grid_are_the_right_way_round():
    images = np.linspace(0, 1, 16).reshape(1, 4, 4)
    options = {"row_labels": ["a"], "column_labels": ["x"], "images": images}
    R = np.ones((1, 1, 4, 4))
    for photographs, name in ((True, "gray"), (False, "gray_r")):
        figure = heatmap.grid(R, **options, photographs=photographs)
        assert figure.axes[0].images[0].get_cmap().name == name
