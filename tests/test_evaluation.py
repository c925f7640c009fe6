"""Active speaker figures: agreement with the official script, break-downs, files, tracks."""

import gzip
from dataclasses import astuple, replace
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyannote_av.core.tracks import FaceTracks
from pyannote_av.evaluation.active_speaker import (
    evaluate,
    evaluate_files,
    evaluate_speakers,
    evaluate_tracks,
)
from pyannote_av.evaluation.ranking import (
    average_precision,
    average_precision_range,
    f1_score,
    roc_auc,
)


def ranked(seed, count, ties):
    """Scores and labels; numbers of RandomState are the same with every numpy"""
    rng = np.random.RandomState(seed)
    labels = rng.random_sample(count) < 0.3
    scores = rng.random_sample(count) + 0.25 * labels
    if ties == "across":
        scores = np.round(scores, 1)
    elif ties == "within":
        scores = np.round(scores, 1) + 0.03 * labels
    return scores, labels


# Rows, ties (between equal labels only, or across labels), seed, and what the official script
# (get_ava_active_speaker_performance.py as in TalkNet-ASD 6d68214, its np.float spelt float, with
# pandas 3.1 and numpy 2.4) reports for the input above. With ties across labels it reports one
# figure on a processor with AVX-512 and another without.
RECORDED = [
    (20, "none", 1, (0.7843137255,)),
    (20, "none", 2, (0.7367965368,)),
    (500, "none", 1, (0.6162979238,)),
    (500, "none", 2, (0.5542999722,)),
    (3000, "none", 1, (0.5859685715,)),
    (3000, "none", 2, (0.6116396560,)),
    (500, "within", 1, (0.6729907180,)),
    (500, "within", 2, (0.6196390284,)),
    (3000, "within", 1, (0.6450022928,)),
    (3000, "within", 2, (0.6675489018,)),
    (500, "across", 1, (0.6029680744, 0.6016270033)),
    (500, "across", 2, (0.5414224343, 0.5501780116)),
    (3000, "across", 1, (0.5760420149, 0.5770063590)),
    (3000, "across", 2, (0.6014773210, 0.6012307829)),
]


@pytest.mark.parametrize(("count", "ties", "seed", "figures"), RECORDED)
def test_figures_of_the_official_script(count, ties, seed, figures):
    scores, labels = ranked(seed, count, ties)
    low, high = average_precision_range(scores, labels)
    ours = average_precision(scores, labels)
    assert low <= ours <= high
    if ties == "across":
        assert high - low > 0.01
        assert all(low <= figure <= high for figure in figures)
    else:
        assert [low, ours, high] == pytest.approx([*figures] * 3, abs=1e-9)


def independent(scores, labels):
    """Sorted by pandas as the official script does, then exact fractions in plain loops"""
    table = pd.DataFrame({"score": scores, "label": labels})
    labels = table.sort_values(by=["score"], ascending=False)["label"].tolist()
    curve, found = [], 0
    for count, label in enumerate(labels, 1):
        found += bool(label)
        curve.append((Fraction(found, sum(labels)), Fraction(found, count)))
    area, reached, best = Fraction(0), Fraction(1), Fraction(0)
    for recall, precision in reversed([(Fraction(0), Fraction(0)), *curve]):
        # from the end: precision so far is the best at any recall above
        area += (reached - recall) * best
        reached, best = recall, max(best, precision)
    return float(area)


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("count", [1, 2, 16, 17, 65, 700])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_an_independent_computation(seed, count, decimals):
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.3
    labels[rng.integers(count)] = True
    scores = rng.normal(labels, 1.0)
    if decimals is not None:
        scores = np.round(scores, decimals)
    for values in (scores, np.zeros(count), np.round(scores).astype(int)):
        assert average_precision(values, labels) == pytest.approx(
            independent(values, labels), abs=1e-9
        )


scored = st.lists(st.tuples(st.integers(-20, 20), st.booleans()), min_size=1, max_size=60).map(
    lambda rows: (np.array([r[0] for r in rows], float), np.array([r[1] for r in rows]))
)


@given(scored)
@settings(max_examples=100, deadline=None)
def test_only_the_order_of_scores_matters(data):
    scores, labels = data
    for curved in (np.exp(scores / 10), 3 * scores - 7, scores**3):
        for figure in (average_precision, average_precision_range, roc_auc):
            np.testing.assert_array_equal(figure(curved, labels), figure(scores, labels))


@given(scored, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_rows_does_not_matter(data, random):
    scores, labels = data
    order = random.sample(range(len(scores)), len(scores))
    for figure in (average_precision_range, roc_auc):
        np.testing.assert_allclose(figure(scores[order], labels[order]), figure(scores, labels))
    scores = scores + np.arange(len(scores)) / 100  # no ties any more
    assert average_precision(scores[order], labels[order]) == pytest.approx(
        average_precision(scores, labels), nan_ok=True
    )


@given(scored)
@settings(max_examples=100, deadline=None)
def test_bounds_hold_for_any_order_of_ties(data):
    scores, labels = data
    if not labels.any():
        return
    low, high = average_precision_range(scores, labels)
    for seed in range(5):
        rank = np.lexsort((np.random.default_rng(seed).random(len(scores)), scores)).argsort()
        assert low - 1e-12 <= average_precision(rank, labels) <= high + 1e-12
    assert low - 1e-12 <= average_precision(scores, labels) <= high + 1e-12


def test_a_case_by_hand():
    scores, labels = [5, 4, 3, 2, 1], [True, False, False, True, True]
    # precision 1, 1/2, 1/3, 1/2, 3/5; at recall 2/3 the best one to come is 3/5
    assert average_precision(scores, labels) == pytest.approx((1 + 3 / 5 + 3 / 5) / 3)
    assert roc_auc(scores, labels) == pytest.approx(2 / 6)
    assert roc_auc([1, 1, 0], [True, False, False]) == pytest.approx(0.75)
    assert average_precision_range([1, 1], [True, False]) == (0.5, 1.0)
    assert f1_score([True, True, False, False], [True, False, True, False]) == 0.5


def test_what_is_undefined_is_nan():
    assert np.isnan(average_precision([1.0, 2.0], [False, False]))
    assert np.isnan(average_precision([], []))
    assert np.isnan(roc_auc([1.0], [True]))
    assert np.isnan(f1_score([False], [False]))
    assert (average_precision([3.0], [True]), f1_score([True], [False])) == (1.0, 0.0)
    with pytest.raises(ValueError, match="score of row 1 is NaN"):
        average_precision([0.0, np.nan], [True, False])
    with pytest.raises(ValueError, match=r"\(2,\) scores for \(1,\) labels"):
        roc_auc([0.0, 1.0], [True])


def test_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    for seed in range(5):
        scores, labels = ranked(seed, 300, "across")
        result = evaluate(scores, labels, threshold=0.5).overall
        assert result.roc_auc == pytest.approx(metrics.roc_auc_score(labels, scores))
        assert result.f1 == pytest.approx(metrics.f1_score(labels, scores > 0.5))
        assert result.accuracy == pytest.approx(metrics.accuracy_score(labels, scores > 0.5))


# --- break-downs


def test_break_down():
    # frame 7: one face; 3: two; 9: three; 1: four, of which one is not annotated
    frame = np.array([7, 3, 3, 9, 9, 9, 1, 1, 1, 1])
    width = np.array([63.9, 64, 128, 128.1, 10, 64, 200, 70, 20, 20])
    labels = np.array([1, 1, 0, 0, 1, 2, 2, 1, 0, -1])
    scores = np.array([2, 1, -1, 1, 3, -2, -3, -4, 5, np.nan])
    result = evaluate(scores, labels, frame, width)
    count = {s.group: (s.faces, s.speaking) for s in result.scores}
    assert count == {
        "all": (9, 4),
        "1 face": (1, 1),
        "2 faces": (2, 1),
        "3 faces": (3, 1),
        "4+ faces": (3, 1),
        "small": (3, 2),
        "middle": (4, 2),
        "large": (2, 0),
    }
    assert result["2 faces"].average_precision == 1.0
    assert result["4+ faces"].average_precision == pytest.approx(1 / 3)
    assert result["small"].average_precision == pytest.approx(2 / 3)
    assert result["3 faces"].accuracy == pytest.approx(2 / 3)
    assert np.isnan(result["large"].average_precision)
    known = labels >= 0
    assert result.overall == evaluate(scores[known], labels[known] == 1).overall


def test_result_can_be_read():
    result = evaluate([2.0, 1.0, 1.0, -1.0], [True, True, False, False], frame=[0, 0, 1, 2])
    lines = repr(result).splitlines()
    assert lines[0].split() == ["faces", "speaking", "AP", "AUC", "F1", "acc"]
    assert lines[1].startswith("all             4        2 ")
    assert lines[1].endswith("87.50  80.00  75.00  (AP 83.33 to 100.00: equal scores)")
    assert lines[3].split() == ["2", "faces", "2", "2", "100.00", "nan", "100.00", "100.00"]
    table = result.to_dataframe()
    assert list(table.index) == ["all", "1 face", "2 faces", "3 faces", "4+ faces"]
    assert table.loc["all", "roc_auc"] == 0.875
    with pytest.raises(KeyError, match="no group 'huge'"):
        result["huge"]


def test_speakers():
    scores = np.array([1.0, -1.0, 2.0, 0.5, -3.0, -1.0, 4.0])
    labels = np.array([1, 0, 1, 0, 1, 0, -1])
    speakers = np.array(["Bell", "Bell", "Sick", "Sick", "Sick", "Sick", "Long"])
    result = evaluate_speakers(scores, labels, speakers)
    assert [s.group for s in result.scores] == ["mean", "Bell", "Sick"]
    assert astuple(result["Bell"])[1:] == (2, 1, 1, 1, 1, 1, 1, 1)
    assert result["Sick"].f1 == pytest.approx(0.5)
    assert result["Sick"].accuracy == pytest.approx(0.5)
    assert (result.overall.faces, result.overall.speaking) == (6, 3)
    assert result.overall.f1 == pytest.approx(0.75)
    with pytest.raises(ValueError, match="no annotated face"):
        evaluate_speakers([1.0], [-1], ["Bell"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], [1]), "labels for"),
        (([1.0], [5]), "label of row 0 is 5"),
        (([1.0, np.nan], [-1, 0]), "row 1 is annotated but has no score"),
        (([1.0], [1], [0, 1]), r"\(2,\) frame for \(1,\) scores"),
        (([1.0], [1], [0], [0.0]), "width of row 0 is 0.0"),
    ],
)
def test_wrong_arrays(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*arguments)


# --- files


HEADER = (
    "video_id,frame_timestamp,entity_box_x1,entity_box_y1,entity_box_x2,entity_box_y2,"
    "label,entity_id"
)


def corpus(count=300, seed=0, decimals=6):
    """Reference and prediction of two videos, three faces a frame, as the official files are"""
    rng = np.random.default_rng(seed)
    row = np.arange(count)
    video = np.where(row < count // 2, "-abc", "0xyz")
    box = np.round(rng.uniform([0, 0, 0.2, 0.3], [0.1, 0.1, 0.3, 0.4], (count, 4)), 6)
    columns = {
        "video_id": video,
        "frame_timestamp": np.round(900 + row // 3 * 0.04, 2),
        **{name: box[:, i] for i, name in enumerate(HEADER.split(",")[2:6])},
        "label": rng.choice(["SPEAKING_AUDIBLE", "NOT_SPEAKING", "SPEAKING_NOT_AUDIBLE"], count),
        "entity_id": [f"{v}_0900_0960:{i % 3}" for i, v in zip(row, video, strict=True)],
    }
    reference = pd.DataFrame(columns)
    scores = np.round(rng.normal(reference["label"] == "SPEAKING_AUDIBLE", 1.0), decimals)
    return reference, reference.assign(label="SPEAKING_AUDIBLE", score=scores)


def written(folder, *tables, header=True):
    paths = [folder / f"{i}.csv" for i in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        table.to_csv(path, index=False, header=header)
    return paths


@pytest.mark.parametrize("decimals", [6, 0])
def test_files(tmp_path, decimals):
    reference, prediction = corpus(decimals=decimals)
    # the official script keeps the order of the reference, which matters for equal scores
    paths = written(tmp_path, reference, prediction.sample(frac=1, random_state=0))
    result = evaluate_files(*paths, frame_width={"-abc": 200, "0xyz": 1500})
    labels = (reference["label"] == "SPEAKING_AUDIBLE").to_numpy()
    scores = prediction["score"].to_numpy()
    assert result.overall.average_precision == pytest.approx(independent(scores, labels), abs=1e-9)
    assert result.overall == evaluate(scores, labels).overall
    assert result["3 faces"].faces == 300
    assert result["small"].faces == 150
    assert result["middle"].faces == 0
    width = 300 * (reference["entity_box_x2"] - reference["entity_box_x1"])
    assert evaluate_files(*paths, frame_width=300)["small"].faces == (width < 64).sum()
    assert "small" not in evaluate_files(*paths).to_dataframe().index


def figures(result):
    return result.to_dataframe().round(12).astype(str).to_dict()  # as text, NaN equals NaN


def test_files_without_header_or_zipped(tmp_path):
    reference, prediction = corpus()
    expected = figures(evaluate_files(*written(tmp_path, reference, prediction)))
    # as in AVA-AVD, a column more
    paths = written(tmp_path, reference.assign(spkid="NA"), prediction, header=False)
    assert figures(evaluate_files(*paths)) == expected
    zipped = tmp_path / "0.csv.gz"
    zipped.write_bytes(gzip.compress(paths[0].read_bytes()))
    assert figures(evaluate_files(zipped, paths[1])) == expected
    paths[0].write_text(paths[0].read_text().replace("\n", "\n\n"))
    assert figures(evaluate_files(*paths)) == expected


def _edit(row, column, value):
    def edit(table):
        table = table.astype({column: object})
        table.loc[row, column] = value
        return table

    return edit


FACE = r"face -abc_0900_0960:1 of video -abc at 900\.04 s"


@pytest.mark.parametrize(
    ("which", "edit", "message"),
    [
        (1, lambda t: t.drop(4), rf"0\.csv, line 6: {FACE} has no counterpart in .*1\.csv"),
        (0, lambda t: t.drop(4), rf"1\.csv, line 6: {FACE} has no counterpart in .*0\.csv"),
        # as many rows in both: here the official script leaves out two without a word
        (1, _edit(4, "frame_timestamp", 950.5), rf"0\.csv, line 6: {FACE} .*nor have 0 others"),
        (1, _edit(4, "video_id", "0xyz"), rf"0\.csv, line 6: {FACE} has no counterpart"),
        (1, lambda t: pd.concat([t, t[4:5]]), rf"1\.csv, line 302: {FACE} is listed twice"),
        (0, lambda t: pd.concat([t, t[4:5]]), rf"0\.csv, line 302: {FACE} is listed twice"),
        (1, _edit(4, "entity_box_x1", 0.5), rf"line 6: {FACE} has box .* but in .*1\.csv, line 6"),
        (1, _edit(4, "score", None), r"1\.csv, line 6: no score"),
        (1, _edit(4, "score", "high"), r"1\.csv, line 6: score 'high' is not a number"),
        (0, _edit(4, "frame_timestamp", "soon"), r"line 6: frame_timestamp 'soon' is not a"),
        (0, _edit(4, "entity_id", ""), r"0\.csv, line 6: no entity_id"),
        (0, _edit(4, "label", "MUMBLING"), r"0\.csv, line 6: label 'MUMBLING', where NOT_SPEAK"),
        (1, _edit(4, "label", "NOT_SPEAKING"), r"1\.csv, line 6: label 'NOT_SPEAKING', where SPEA"),
        (1, lambda t: t.drop(columns="score"), r"1\.csv, line 1: no column score"),
        (1, lambda t: t[:0], r"1\.csv: no rows"),
    ],
)
def test_errors_name_the_first_row(tmp_path, which, edit, message):
    tables = list(corpus())
    tables[which] = edit(tables[which])
    with pytest.raises(ValueError, match=message):
        evaluate_files(*written(tmp_path, *tables))


def test_files_that_are_none(tmp_path):
    paths = written(tmp_path, *corpus())
    with pytest.raises(FileNotFoundError):
        evaluate_files(paths[0], tmp_path / "nothing.csv")
    with pytest.raises(ValueError, match=r"frame_width has no video '0xyz'"):
        evaluate_files(*paths, frame_width={"-abc": 640})
    for text, message in (("", "is empty"), ("a,1,2\n", "line 1: 3 fields, 9 are expected")):
        paths[1].write_text(text)
        with pytest.raises(ValueError, match=message):
            evaluate_files(*paths)


# --- face tracks


def tracks(uri="clip", seed=0, **kwargs):
    """Two faces for 50 frames; one at a time is labelled, about"""
    rng = np.random.default_rng(seed)
    label = rng.integers(-1, 3, 100)
    low = rng.uniform(0, 0.5, (100, 2))
    return FaceTracks(
        time=np.tile(np.arange(50) / 25, 2),
        track=np.repeat([3, 8], 50),
        box=np.concatenate([low, low + 0.2], axis=1),
        speaking=rng.normal(label == 1, 1.0),
        label=label,
        uri=uri,
        speaker={3: "Ann", 8: "Bob"},
        **kwargs,
    )


def test_tracks():
    one = tracks(frame_size=(500, 300))
    result = evaluate_tracks(one)
    known = one.label >= 0
    assert result.overall == evaluate(one.speaking[known], one.label[known]).overall
    assert result["2 faces"].faces == known.sum()
    assert result["middle"].faces == known.sum()
    # the reference need not have scores, nor the prediction labels
    blank = np.full(100, np.nan)
    given = [replace(one, speaking=blank), tracks("other", seed=1)]
    found = [tracks("other", seed=1), replace(one, label=None)]
    both = evaluate_tracks(given, found)
    assert both["2 faces"].faces == known.sum() + (given[1].label >= 0).sum()
    assert "small" not in both.to_dataframe().index
    assert evaluate_tracks(given, found, frame_width=100)["small"].faces == both.overall.faces


def test_tracks_by_speaker():
    one = tracks()
    result = evaluate_tracks(one, by="speaker")
    assert [s.group for s in result.scores] == ["mean", "Ann", "Bob"]
    ann = one.of(3)
    assert result["Ann"] == replace(evaluate_tracks(ann).overall, group="Ann")
    only = evaluate_tracks(one.with_speakers({8: "Bob"}), by="speaker")
    assert only["Bob"] == result["Bob"]
    assert len(only.scores) == 2
    with pytest.raises(ValueError, match="by must be"):
        evaluate_tracks(one, by="face")


def test_wrong_tracks():
    one = tracks()
    i = int((one.label >= 0).argmax())
    missing = np.where(np.arange(100) == i, np.nan, one.speaking)
    with pytest.raises(ValueError, match=rf"face 3 of video clip at {i / 25:g} s .*no score"):
        evaluate_tracks(one, replace(one, speaking=missing))
    with pytest.raises(ValueError, match=r"the reference: face 3 .* no counterpart"):
        evaluate_tracks(one, one.take(slice(1, None)))
    with pytest.raises(ValueError, match=r"the reference: face 3 of video clip at 0 s has box"):
        evaluate_tracks(one, replace(one, box=one.box + 0.01))
    with pytest.raises(ValueError, match="several face tracks of one uri"):
        evaluate_tracks([one, one])
    with pytest.raises(ValueError, match="no face tracks"):
        evaluate_tracks([])


def test_tracks_written_as_csv(tmp_path):
    one = tracks()
    replace(one, speaking=None).write(tmp_path / "reference.csv")
    replace(one, label=None).write(tmp_path / "prediction.csv")
    result = evaluate_files(tmp_path / "reference.csv", tmp_path / "prediction.csv")
    assert result.overall == evaluate_tracks(one).overall


def test_public_annotations(shared_data, tmp_path):
    path = min((shared_data / "annotations/ava_avd/tracks").glob("*.csv.gz"))
    one = FaceTracks.read(path)
    one.speaking = np.random.default_rng(0).normal(one.label == 1, 1).astype("f4")
    result = evaluate_tracks(one, frame_width=640)
    assert result.overall.faces == len(one)
    assert sum(result[f"{n} faces"].faces for n in ("2", "3", "4+")) + result["1 face"].faces == (
        len(one)
    )
    assert sum(result[g].faces for g in ("small", "middle", "large")) == len(one)
    # the reference as released: no header, nine columns; tracks are numbered as they appear
    table = pd.read_csv(path, header=None).drop(columns=8)
    index = pd.MultiIndex.from_arrays([one.track, np.round(one.time, 3)])
    rows = index.get_indexer([pd.factorize(table[7])[0], table[1].round(3)])
    table[6], table["score"] = "SPEAKING_AUDIBLE", one.speaking[rows]
    table.to_csv(tmp_path / "prediction.csv", index=False, header=False)
    same = evaluate_files(path, tmp_path / "prediction.csv", frame_width=640)
    pd.testing.assert_frame_equal(same.to_dataframe(), result.to_dataframe())
