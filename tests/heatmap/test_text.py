"""Relevance as coloured text: what is shown, that nothing in it acts, and what is refused."""

import itertools
import sys
from html.parser import HTMLParser

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import heatmap
from jaxlrp.heatmap import paragraph

WORDS = ["not", "a", "bad", "film"]
R = np.array([-1.0, 0.0, 2.0, 0.5])


class Page(HTMLParser):
    """Reads a page back: every tag must be closed, and the spans of the text are kept."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.spans, self.text = [], [], [], ""
        self.in_token = False
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)
        self.in_token = tag == "span" and "title" in dict(attrs)
        if self.in_token:
            self.spans.append({**dict(attrs), "shown": ""})

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.in_token = False

    def handle_data(self, data):
        self.text += data
        if self.in_token:
            self.spans[-1]["shown"] += data

    def colours(self):
        hexes = [span["style"].split("background:#")[1][:6] for span in self.spans]
        return np.array([[int(h[i : i + 2], 16) for i in (0, 2, 4)] for h in hexes])

    def shown(self):
        return [span["shown"] for span in self.spans]


def luminance(colour):
    s = np.asarray(colour, dtype=np.float64) / 255
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


class TestHtml:
    def test_a_page_is_text_that_a_notebook_shows(self):
        page = heatmap.text_html(WORDS, R)
        assert isinstance(page, str)
        assert page._repr_html_() == page
        assert page.startswith("<!DOCTYPE html>")
        assert not {"script", "link", "img"} & set(Page(page).tags)

    def test_every_token_has_its_colour_and_its_number(self):
        page = Page(heatmap.text_html(WORDS, R))
        assert page.shown() == WORDS
        expected = heatmap.colours(R[None])[0]
        np.testing.assert_array_equal(page.colours(), expected)
        assert [span["title"] for span in page.spans] == [
            "0: 'not' -1", "1: 'a' +0", "2: 'bad' +2", "3: 'film' +0.5",
        ]  # fmt: skip

    @pytest.mark.parametrize("where", ["tokens", "heading", "title", "separator"])
    def test_markup_is_text(self, where):
        evil = "</div><script>alert('&amp;\"')</script>"
        tokens, options, heading = list("ab"), {}, "h"
        if where == "tokens":
            tokens = [evil, "b"]
        elif where == "heading":
            heading = evil
        else:
            options = {where: evil}
        page = Page(heatmap.text_html(tokens, {heading: [0.5, -1.0]}, **options))
        assert "script" not in page.tags
        assert evil in page.text

    def test_quotes_do_not_end_the_number(self):
        token = '" onmouseover="alert(1)" x=\''
        (span,) = Page(heatmap.text_html([token], [1.0])).spans
        assert set(span) == {"title", "style", "shown"}
        assert span["title"] == f"0: {token!r} +1"

    def test_line_ends_tabs_and_letters_without_a_picture_are_seen(self):
        page = Page(heatmap.text_html(b"a\n\t\x00\xe9\r", np.ones(6)))
        assert page.shown() == ["a", "↵\n", "→   ", "\\x00", "\\xe9", "\\r"]
        page = Page(heatmap.text_html(["\u202eabc", "", "\u200b", "ü"], np.ones(4)))
        assert page.shown() == ["\\u202eabc", "∅", "\\u200b", "ü"]

    def test_letters_and_bytes_are_tokens_without_gaps(self):
        for text in ("ab c", b"ab c"):
            page = heatmap.text_html(text, np.ones(4))
            assert Page(page).shown() == list("ab c")
            assert "</span><span" in page
        assert "</span> <span" in heatmap.text_html(WORDS, R)
        assert "</span> <span" not in heatmap.text_html(["a", " b"], [1.0, 2.0], separator="")

    def test_letters_are_readable_on_every_colour(self):
        numbers = np.linspace(-1, 1, 101)
        page = Page(heatmap.text_html(["x"] * 101, numbers, scale=1.0))
        inks = {"#000": 0.0, "#fff": 1.0}
        for span, background in zip(page.spans, luminance(page.colours())):
            ink = inks[span["style"].split("color:")[-1]]
            light, dark = max(ink, background), min(ink, background)
            assert (light + 0.05) / (dark + 0.05) >= 4.5

    def test_low_precision(self):
        exact = heatmap.text_html(WORDS, R.astype(np.float32))
        assert heatmap.text_html(WORDS, jnp.asarray(R, jnp.bfloat16)) == exact


class TestSeveralTexts:
    def test_one_text_in_several_ways(self):
        page = Page(heatmap.text_html(WORDS, {"one": R, "other": -R}))
        assert page.shown() == WORDS * 2
        assert page.text.index("one") < page.text.index("other")

    def test_several_texts(self):
        page = Page(heatmap.text_html({"b": b"xy", "a": "z"}, {"a": [1.0], "b": [1.0, 2.0]}))
        assert page.shown() == ["z", "x", "y"]

    def test_scale_per_text_or_shared_or_given(self):
        texts = {"small": R, "great": 10 * R}

        def colours(**options):
            painted = Page(heatmap.text_html(WORDS, texts, percentile=100, **options)).colours()
            return painted[:4], painted[4:]

        small, great = colours()
        np.testing.assert_array_equal(small, great)
        small, great = colours(per="shared")
        np.testing.assert_array_equal(small, heatmap.colours(R[None], scale=20.0)[0])
        np.testing.assert_array_equal(great, heatmap.colours(R[None], scale=2.0)[0])
        small, great = colours(scale=[4.0, 20.0])
        np.testing.assert_array_equal(small, heatmap.colours(R[None], scale=4.0)[0])
        np.testing.assert_array_equal(great, heatmap.colours(R[None], scale=2.0)[0])

    def test_scales_are_written(self):
        texts = {"small": R, "great": 10 * R}
        own = heatmap.text_html(WORDS, texts, percentile=100)
        assert "±2.0<" in own
        assert "±20<" in own
        shared = heatmap.text_html(WORDS, texts, per="shared", percentile=100)
        assert "±" not in shared
        assert "−20<" in shared
        assert "+20 for" in shared


class TestMerge:
    def test_word_pieces(self):
        tokens = ["[CLS]", "un", "##believ", "##able", "fun", "[SEP]"]
        numbers = np.array([0.5, 1.0, 2.0, -4.0, 8.0, 16.0])
        words, merged = heatmap.merge_pieces(tokens, numbers, continues="##")
        assert words == ["[CLS]", "unbelievable", "fun", "[SEP]"]
        assert merged.tolist() == [0.5, -1.0, 8.0, 16.0]

    @pytest.mark.parametrize("marker", ["▁", "Ġ"])
    def test_leading_markers(self, marker):
        tokens = ["<s>", "It", "'s", f"{marker}un", "real", "!", "</s>", "x", "</s>"]
        words, merged = heatmap.merge_pieces(
            tokens, np.arange(9.0), starts=marker, alone=["<s>", "</s>"]
        )
        assert words == ["<s>", "It's", "unreal!", "</s>", "x", "</s>"]
        assert merged.tolist() == [0, 3, 12, 6, 7, 8]

    def test_a_marker_alone_begins_a_word(self):
        words, merged = heatmap.merge_pieces(["▁", "a", "▁b"], [1.0, 2.0, 4.0], starts="▁")
        assert (words, merged.tolist()) == (["a", "b"], [3.0, 4.0])

    def test_nothing_to_continue(self):
        words, _ = heatmap.merge_pieces(
            ["##a", "##b", "[UNK]", "##c"], np.ones(4), continues="##", alone=["[UNK]"]
        )
        assert words == ["ab", "[UNK]", "c"]

    def test_sums_are_kept_for_every_method(self):
        rng = np.random.default_rng(0)
        numbers = rng.normal(size=(3, 50))
        tokens = [("##" if rng.random() < 0.5 else "") + "x" for _ in range(50)]
        words, merged = heatmap.merge_pieces(tokens, numbers, continues="##")
        assert merged.shape == (3, len(words))
        np.testing.assert_allclose(merged.sum(-1), numbers.sum(-1), rtol=1e-13)
        assert "".join(words) == "x" * 50

    @pytest.mark.parametrize(
        "markers",
        [{}, {"continues": "##", "starts": "▁"}, {"continues": ""}, {"starts": ""}],
    )
    def test_the_marker_is_said_not_guessed(self, markers):
        with pytest.raises(ValueError, match="needs one marker"):
            heatmap.merge_pieces(["a"], [1.0], **markers)

    def test_refused(self):
        with pytest.raises(ValueError, match=r"2 tokens need relevance of shape \(..., 2\)"):
            heatmap.merge_pieces(["a", "b"], [1.0], continues="##")
        with pytest.raises(TypeError, match="a sequence of strings"):
            heatmap.merge_pieces("ab", [1.0, 2.0], continues="##")
        with pytest.raises(TypeError, match="must be a floating array"):
            heatmap.merge_pieces(["a"], [1], continues="##")


class TestFigure:
    @staticmethod
    def letters(figure):
        return "".join(text.get_text() for text in figure.axes[0].texts)

    @staticmethod
    def boxes(figure):
        (collection,) = figure.axes[0].collections
        return [path.get_extents() for path in collection.get_paths()]

    def test_every_letter_is_drawn_once_in_its_colour(self):
        figure = heatmap.text_figure(b"abc\tx", np.array([1.0, -1.0, 0.0, 0.5, 0.25]))
        assert self.letters(figure) == "abc→x"
        faces = np.rint(255 * figure.axes[0].collections[0].get_facecolors()[:3, :3])
        np.testing.assert_array_equal(faces, heatmap.colours(np.array([[1.0, -1.0, 0.0]]))[0])

    def test_text_is_wrapped_and_stays_on_the_page(self):
        for text in (b"0123456789" * 40, ["word"] * 60, ["x" * 300, "y"]):
            figure = heatmap.text_figure(text, np.ones(len(text)), width=4.0)
            boxes = self.boxes(figure)
            assert min(box.x0 for box in boxes) >= 0.15 - 1e-6
            assert max(box.x1 for box in boxes) <= 4.0 - 0.15 + 1e-5
            assert len({round(box.y0, 4) for box in boxes}) > 2
            assert max(box.y1 for box in boxes) < figure.get_figheight()

    def test_boxes_do_not_overlap(self):
        figure = heatmap.text_figure(["some", "words", "i", "WWWW"] * 12, np.ones(48), width=4.0)
        boxes = self.boxes(figure)
        for i, box in enumerate(boxes):
            for other in boxes[:i]:
                overlap_x = min(box.x1, other.x1) - max(box.x0, other.x0)
                overlap_y = min(box.y1, other.y1) - max(box.y0, other.y0)
                assert min(overlap_x, overlap_y) <= 1e-6

    def test_words_fit_their_boxes(self):
        figure = heatmap.text_figure(WORDS, R)
        figure.draw_without_rendering()
        to_inches = figure.axes[0].transData.inverted()
        for text, box in zip(figure.axes[0].texts, self.boxes(figure), strict=True):
            ink = text.get_window_extent().transformed(to_inches)
            assert box.x0 <= ink.x0
            assert ink.x1 <= box.x1

    def test_words_stand_apart_and_bytes_do_not(self):
        words = self.boxes(heatmap.text_figure(WORDS, R))
        assert all(a.x1 + 0.02 < b.x0 for a, b in itertools.pairwise(words))
        letters = self.boxes(heatmap.text_figure(b"abcd", R))
        assert all(abs(a.x1 - b.x0) < 1e-6 for a, b in itertools.pairwise(letters))

    def test_lines_end_where_the_text_says(self):
        figure = heatmap.text_figure("a\nb", np.ones(3))
        a, end, b = self.boxes(figure)
        assert a.y0 == end.y0 < b.y0
        assert a.x0 == b.x0 < end.x0

    @pytest.mark.parametrize("width", [2.5, 6.0])
    def test_headings_are_wrapped_and_nothing_overlaps(self, width):
        long = "a heading that says rather much about what follows"
        figure = heatmap.text_figure(
            WORDS, {long: R, f"{long}, again": 2 * R}, title=f"The title: {long}", width=width
        )
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in figure.texts]
        boxes += [text.get_window_extent() for text in figure.axes[0].texts]
        boxes.append(figure.axes[1].get_window_extent())
        assert (
            "".join(text.get_text() for text in figure.texts).replace(" ", "").count("follows") == 3
        )
        for i, box in enumerate(boxes):
            assert min(box.x0, box.y0) >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1
            for other in boxes[:i]:
                overlap_x = min(box.x1, other.x1) - max(box.x0, other.x0)
                overlap_y = min(box.y1, other.y1) - max(box.y0, other.y0)
                assert min(overlap_x, overlap_y) <= 0

    def test_it_can_be_saved_and_leaves_pyplot_alone(self, tmp_path):
        loaded = "matplotlib.pyplot" in sys.modules
        figure = heatmap.text_figure(
            ["$\\frac{", "^_$", "<b>"],  # no mathematics, no markup
            {"one": [1.0, 2.0, 3.0], "$x$": [0.0, 0.0, 0.0]},
            title="why $",
        )
        figure.savefig(tmp_path / "text.png")
        assert (tmp_path / "text.png").read_bytes().startswith(b"\x89PNG")
        assert self.letters(figure) == "$\\frac{^_$<b>" * 2
        texts = {text.get_text() for text in figure.texts}
        assert {"why $", "one", "$x$", "±3.0", "±0.0", "for", "against"} <= texts
        assert ("matplotlib.pyplot" in sys.modules) == loaded

    def test_a_page_too_narrow(self):
        with pytest.raises(ValueError, match="too narrow"):
            heatmap.text_figure("a", [1.0], width=0.32)

    def test_without_matplotlib_the_message_names_the_extra(self, monkeypatch):
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r"pip install 'jaxlrp\[examples\]'"):
            heatmap.text_figure(WORDS, R)
        assert "film" in heatmap.text_html(WORDS, R)


@pytest.mark.parametrize("draw", [heatmap.text_html, heatmap.text_figure])
class TestRefused:
    @pytest.mark.parametrize(
        ("tokens", "numbers", "message"),
        [
            (WORDS, R[:3], r"4 tokens need one number each, .* shape \(3,\)"),
            (WORDS, np.ones((4, 7)), r"sum over its features first, R.sum\(-1\)"),
            (WORDS, R[None], r"R\[0\] is the first text"),
            (WORDS, {"x": R[:3]}, "4 tokens of 'x' need"),
            (WORDS, np.array([0.0, np.nan, np.inf, np.nan]), "of 4 values 2 are NaN, 1 infinite"),
            ([], np.ones(0), "has no tokens"),
            (WORDS, {}, "mapping of relevance is empty"),
            ({"a": WORDS}, {"b": R}, r"tokens names the texts \['a'\], relevance \['b'\]"),
        ],
    )
    def test_values(self, draw, tokens, numbers, message):
        with pytest.raises(ValueError, match=message):
            draw(tokens, numbers)

    def test_types(self, draw):
        with pytest.raises(TypeError, match="tokens must be str or bytes, not int"):
            draw([101, 2023], [1.0, 2.0])
        with pytest.raises(TypeError, match="relevance must be a floating array"):
            draw(["a"], [1])

    def test_options(self, draw):
        with pytest.raises(ValueError, match='per must be "text" or "shared"'):
            draw(WORDS, R, per="row")
        with pytest.raises(ValueError, match="scale must be positive"):
            draw(WORDS, R, scale=0.0)
        with pytest.raises(ValueError, match="percentile must be above 0"):
            draw(WORDS, R, percentile=0)


class TestLetters:
    """Titles, headings and separators are shown as tokens are: nothing in them acts."""

    MARKS = "\u202e\u2066\ud800\x00"  # directions, half of a pair, a control letter

    def test_in_a_page(self):
        texts = {self.MARKS: ["a", "b"], 7: ["c"]}
        numbers = {self.MARKS: [1.0, -1.0], 7: [1.0]}
        page = heatmap.text_html(texts, numbers, separator=self.MARKS, title=self.MARKS)
        page.encode("utf-8")
        assert not set(self.MARKS) & set(page)
        shown = r"\u202e\u2066\ud800\x00"
        assert page.count(shown) == 4  # title twice, heading, separator
        assert "<h2>7" in page

    def test_in_a_figure(self, tmp_path):
        texts = {self.MARKS: ["a", "b"], 7: ["c"]}
        numbers = {self.MARKS: [1.0, -1.0], 7: [1.0]}
        figure = heatmap.text_figure(texts, numbers, separator=" | ", title="$x_{$" + self.MARKS)
        figure.savefig(tmp_path / "text.png")
        figure.savefig(tmp_path / "text.svg")
        found = [text.get_text() for text in figure.texts]
        shown = r"\u202e\u2066\ud800\x00"
        assert {"$x_{$" + shown, shown, "7"} <= set(found)
        (letters,) = [a.texts for a in figure.axes if a.texts]
        assert [t.get_text() for t in letters] == ["a", " | ", "b", "c"]

    def test_a_separator_may_end_lines(self):
        figure = heatmap.text_figure(WORDS, R, separator=",\n")
        (letters,) = [a.texts for a in figure.axes if a.texts]
        assert [t.get_text() for t in letters] == ["not", ",", "a", ",", "bad", ",", "film"]
        lines = [t.get_position()[1] for t in letters]
        assert lines == sorted(lines) and len(set(lines)) == 4

    def test_pieces_of_a_long_token_fill_their_lines(self, monkeypatch):
        """Each is as long as its line takes, and few letters are measured for it."""
        measured = []

        def wide(letters):
            measured.append(len(letters))
            return sum(0.02 if letter == "i" else 0.05 for letter in letters)

        letters = "".join("im"[(n * n) % 2] for n in range(3000))
        pieces = paragraph._pieces(letters, 2.0, wide)
        assert "".join(pieces) == letters
        for piece, after in itertools.pairwise(pieces):
            assert wide(piece) <= 2.0 < wide(piece + after[0])
        assert sum(measured) < 40 * len(letters)
        assert paragraph._pieces("wide", 0.01, wide) == list("wide")
        assert paragraph._pieces("", 2.0, wide) == []

    @pytest.mark.parametrize("change", [{"size": 0}, {"width": -1.0}, {"size": float("nan")}])
    def test_lengths_of_nothing(self, change):
        with pytest.raises(ValueError, match="must be a positive number"):
            heatmap.text_figure(WORDS, R, **change)
