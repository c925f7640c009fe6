"""Results in notebooks."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from media import write_media
from pyannote.core import Annotation, Segment

from pyannote_av import FaceTracks
from pyannote_av.core.output import AVDiarizeOutput, Report
from pyannote_av.core.palette import UNKNOWN, colour_of

HOSTILE = "<img src=x onerror=alert(1)>"


def result(speakers=("Ann", "Bob"), turns=4, **report):
    annotation = Annotation(uri="talk")
    for i in range(turns):
        annotation[Segment(i, i + 1.5), i] = speakers[i % len(speakers)]
    return AVDiarizeOutput(annotation, annotation, report=Report(duration=turns + 1.0, **report))


def faces(count=2, **kwargs):
    time = np.tile(np.arange(10) / 25, count)
    box = np.tile([0.0, 0.0, 0.5, 0.25], (10 * count, 1))
    return FaceTracks(time, np.repeat(np.arange(count), 10), box, **kwargs)


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in ("img", "rect", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_timeline_and_report():
    html = result(reasons=["2 of 2 speakers have a face"])._repr_html_()
    assert Tags(html).seen.count("path") == 2
    assert html.count("z") >= 4
    assert "2 of 2 speakers have a face" in html
    assert colour_of(0) in html
    assert "<b>talk</b>: 2 speakers, 4 turns, 5.0 s" in html


@pytest.mark.parametrize(("speakers", "turns"), [(10, 500), (200, 5000), (1, 20_000), (0, 0)])
def test_is_small_and_says_what_is_left_out(speakers, turns):
    names = [f"{HOSTILE} {i}" for i in range(speakers)] or ["nobody"]
    output = result(names, turns, problems=["p" * 100] * 500)
    html = output._repr_html_()
    assert len(html) < 50_000
    assert "img" not in Tags(html).seen
    assert ("more speakers" in html) == (speakers > 20)
    assert ("only the first 1000 turns" in html) == (turns > 5000)
    assert ("nobody speaks" in html) == (turns == 0)


def test_table_of_faces(tmp_path):
    tracks = faces(speaker={0: HOSTILE}, uri="talk")
    html = tracks._repr_html_()
    assert "img" not in Tags(html).seen
    assert html.count("<tr>") == 3
    assert "unknown" in html
    video = write_media(tmp_path / "talk.mp4", duration=0.4)
    shown = tracks.show(video)
    assert Tags(shown).seen.count("img") == 2
    assert shown._repr_html_() == shown
    assert "70 more face tracks" in faces(100)._repr_html_()
    assert "0 face tracks" in FaceTracks.empty()._repr_html_()


def test_faces_have_the_colours_of_the_timeline():
    tracks = faces(2, speaker={0: "Bob"})
    html = tracks.show(speakers=["Ann", "Bob"])  # Ann is never seen
    rows = html.split("<tr>")
    assert f"color:{colour_of(1)}" in rows[2]
    assert "Bob" in rows[2]
    assert f"color:{UNKNOWN}" in rows[3]
    assert colour_of(0) not in html
    assert "color" not in tracks.show()  # any colour could be that of somebody else


def test_picture_is_the_face(tmp_path):
    import base64

    import cv2

    video = write_media(tmp_path / "talk.mp4", duration=0.4)  # its upper left quarter is red
    html = faces(1).show(video)
    data = base64.b64decode(re.search(r"base64,([^\"]+)", html).group(1))
    face = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    blue, green, red = face.mean(axis=(0, 1))
    assert red > 200
    assert max(blue, green) < 60


def test_plot():
    import matplotlib

    matplotlib.use("Agg")
    output = result(("Ann", "$x^2"))
    ax = output.plot()
    assert [one.get_text() for one in ax.get_yticklabels()] == [r"\$x^2", "Ann"]
    assert output.plot(ax) is ax
    ax.figure.canvas.draw()
    matplotlib.pyplot.close(ax.figure)
    empty = AVDiarizeOutput(Annotation(), Annotation()).plot()
    empty.figure.canvas.draw()
    matplotlib.pyplot.close(empty.figure)
