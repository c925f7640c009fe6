"""The report and the printed forms of results: what users read first."""

import warnings

import numpy as np
import pytest
from pyannote.audio.pipelines.utils.hook import ProgressHook
from pyannote.core import Annotation, Segment

from pyannote_av.core.output import AVDiarizeOutput, Report
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.fusion.guard import MIN_GAIN
from pyannote_av.fusion.identities import FaceIdentities
from pyannote_av.fusion.speakers import Speakers
from pyannote_av.pipelines.late_fusion import Fused, LateFusion


def turns(*labels: str) -> Annotation:
    found = Annotation(uri="talk")
    for i, label in enumerate(labels):
        found[Segment(2 * i, 2 * i + 1.5)] = label
    return found


def tracks(**speaker: str) -> FaceTracks:
    """One face for four seconds, with the speaker of track 0."""
    time = np.arange(100) / 25
    box = np.tile(np.array([0.1, 0.1, 0.6, 0.6], np.float32), (100, 1))
    known = {int(track.removeprefix("track")): label for track, label in speaker.items()}
    return FaceTracks(time, np.zeros(100, int), box, uri="talk", speaker=known)


def first_pass(refused: bool = False) -> Fused:
    """A first pass that associates no face with a voice."""
    report = Report(duration=4.0, reasons=["a reason"])
    found = AVDiarizeOutput(turns("A", "B"), turns("A", "B"), face_tracks=tracks(), report=report)
    sound = Speakers.of_sound(found, 4.0)
    return Fused(found, 0.0, found, sound, FaceIdentities.empty(), 0.0, {}, refused)


def test_the_report_speaks_of_the_final_result():
    first = first_pass()
    final = AVDiarizeOutput(
        turns("A", "B", "B"),
        turns("A", "B", "B"),
        face_tracks=tracks(track0="B"),
        report=first.output.report,
    )
    assert first.conclude(final, 1.0) is final
    assert final.report.video_used
    assert final.report.reasons == ["a reason", "1 of 2 speakers have a face"]
    # the only face is not one of the trusted identities
    assert [one["start"] for one in final.report.ignored_regions] == [0.0, 2.0, 4.0]
    assert final.report.changes == []  # the turn after the end of the file does not count
    other = AVDiarizeOutput(turns("B", "B"), turns("B", "B"), report=first.output.report)
    first.conclude(other, 1.0)
    assert final.report.changes == [
        "50.0 % of the speech: 1.5 s given to another speaker, 0.0 s added, 0.0 s removed"
    ]


def test_changes_with_little_evidence_are_not_made():
    first = first_pass()
    final = AVDiarizeOutput(turns("B", "B"), turns("B", "B"), report=first.output.report)
    assert first.conclude(final, MIN_GAIN - 0.01) is first.output
    report = first.output.report
    assert report.changes == []
    assert report.reasons[1] == (
        "the picture gives too little evidence to change the turns of the sound (0.14, and 0.15 is "
        "needed)"
    )
    # nothing is said if nothing would have changed
    first = first_pass()
    first.conclude(first.output, 0.0)
    assert not any("evidence" in reason for reason in first.output.report.reasons)


def test_without_a_named_face_the_report_says_so():
    first = first_pass()
    first.conclude(first.output, 0.0)
    assert not first.output.report.video_used
    assert "no face was associated with a voice" in str(first.output.report)


def test_nothing_is_added_to_the_reason_why_the_video_was_refused():
    first = first_pass(refused=True)
    first.conclude(first.output, 0.0)
    assert first.output.report.reasons == ["a reason"]
    assert not first.output.report.ignored_regions


def test_outputs_are_shown_in_one_line():
    output = AVDiarizeOutput(
        turns("A", "B"), turns("A", "B"), np.zeros((2, 192)), tracks(), Report(duration=4.0)
    )
    shown = "<AVDiarizeOutput talk, 2 speakers, 2 turns, 3.0 s of speech in 4.0 s, 1 face track>"
    assert repr(output) == shown
    assert repr(AVDiarizeOutput(turns("A"), turns("A"))) == (
        "<AVDiarizeOutput talk, 1 speaker, 1 turn, 1.5 s of speech>"
    )


@pytest.mark.parametrize("name", ["audio", "late_fusion"])
def test_progress_hook_of_pyannote(name, short_sample):
    from pyannote_av import Pipeline

    tracks = FaceTracks.read(short_sample["tracks"])
    file = {"video": short_sample["video"], "face_tracks": tracks}
    with ProgressHook(transient=True) as hook:
        output = Pipeline.from_pretrained(name)(file, hook=hook)
    assert all(task.finished for task in hook.progress.tasks)
    assert "segmentation" in {task.description for task in hook.progress.tasks}
    assert str(output.report).startswith("video used: ")


def test_a_pipeline_that_was_built_by_hand_has_its_defaults_without_a_warning(short_sample):
    file = {
        "video": short_sample["video"],
        "face_tracks": FaceTracks.empty(uri="sample"),
        "diarization": turns("A"),
    }
    pipeline = LateFusion(embedder=None, scorer="synchrony")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pipeline(file)
    assert pipeline.min_new == pipeline.default_parameters()["min_new"]


def test_written_report_is_the_same_after_reading():
    """Also the factor, which is computed from times that have been rounded"""
    report = Report(video_used=True)
    report.duration, report.seconds = 6.2003, {"audio": 2.00349, "faces": 2.84349}
    content = report.to_dict()
    assert content["real_time_factor"] == round((2.003 + 2.843) / 6.2, 4)
    again = Report(**{k: v for k, v in content.items() if k != "real_time_factor"})
    assert again.to_dict() == content
