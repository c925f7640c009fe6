"""Pictures come out as players show them, whatever way they are stored in."""

import gc
import math
import warnings
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import media
import numpy as np
import pytest
from media import SIZE, Pictures, Sound, write_streams
from pyannote.core import Segment

from pyannote_av.core.display import Orientation, Scaler, deinterlace, fit, square_size
from pyannote_av.core.io import Video
from pyannote_av.core.tracks import FaceTracks

BACKENDS = ["pyav", "decord"]
UPRIGHT = [m for m in product((-1, 0, 1), repeat=4) if abs(m[0] * m[3] - m[1] * m[2]) == 1]
UPRIGHT = [m for m in UPRIGHT if sum(map(abs, m)) == 2]


def placed(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Picture in which (x, y) has moved to (a x + c y, b x + d y), as ISO 14496-12 defines it"""
    a, b, c, d = matrix
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    right, down = a * x + c * y, b * x + d * y
    right, down = right - right.min(), down - down.min()
    moved = np.empty((down.max() + 1, right.max() + 1, 3), image.dtype)
    moved[down, right] = image
    return moved


def first(path, **options) -> np.ndarray:
    return next(Video(**options).frames(path)).image


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def grey_difference(path, index: int = 0) -> float:
    """Mean difference between the grey picture of a frame and the luma of its colours"""
    import cv2

    frame = list(Video().frames(path, problems=[]))[index]
    grey, image = frame.grey, frame.image
    assert grey.dtype == np.uint8
    assert grey.flags.c_contiguous
    return difference(grey, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


# --- orientation --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("matrix", UPRIGHT, ids=lambda m: ",".join(map(str, m)))
def test_all_orientations(tmp_path, matrix, backend):
    path = write_streams(tmp_path / "turned.mp4", Pictures(duration=0.2, matrix=matrix))
    image, stream = first(path, backend=backend), Video().probe(path).video
    assert image.shape == (stream.height, stream.width, 3)
    assert stream.mirrored == (matrix[0] * matrix[3] - matrix[1] * matrix[2] < 0)
    expected = placed(media.draw_time(0.0), matrix)
    assert difference(image, expected) < 12
    assert all(
        difference(image, placed(media.draw_time(0.0), other)) > 15
        for other in UPRIGHT
        if other != matrix
        and placed(expected, other).shape == expected.shape
        and placed(media.draw_time(0.0), other).shape == image.shape
    )


def test_orientations_that_matroska_can_say(tmp_path):
    path = write_streams(tmp_path / "mirror.mkv", Pictures(duration=0.2, matrix=(-1, 0, 0, 1)))
    assert difference(first(path), media.draw_time(0.0)[:, ::-1]) < 12


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_orientation_is_applied_to_arrays(mirrored, rotation):
    image = np.arange(6).reshape(2, 3)
    expected = np.rot90(image[:, ::-1] if mirrored else image, rotation // 90)
    assert np.array_equal(Orientation(mirrored, rotation).apply(image), expected)
    assert Orientation(mirrored, rotation).sideways == (rotation in (90, 270))


def test_parts_of_a_mirrored_file_are_those_of_the_whole(tmp_path):
    path = write_streams(tmp_path / "m.mp4", Pictures(duration=3, matrix=(0, 1, 1, 0)))
    whole = list(Video().frames(path))
    images, times = Video().crop(path, Segment(1.6, 2.0))
    assert len(images) == 10
    for image, time in zip(images, times, strict=True):
        assert np.array_equal(image, whole[round(time * 25)].image)


def test_pictures_are_freed_as_soon_as_they_are_not_used(tmp_path):
    path = write_streams(tmp_path / "turned.mp4", Pictures(duration=2, matrix=(0, 1, -1, 0)))
    gc.collect()
    gc.disable()
    try:
        held = 0
        for frame in Video().frames(path):
            assert frame.image.any()
            found = sum(isinstance(one, av.VideoFrame) for one in gc.get_objects())
            held = max(held, found)
    finally:
        gc.enable()
    assert 0 < held < 10


# --- pixels that are not square -----------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "libx264"), (".mkv", "libx264"), (".ts", "mpeg2video")]
)
@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(8, 9), Fraction(2, 1)])
def test_pixels_are_made_square(tmp_path, suffix, codec, aspect, backend):
    if codec == "mpeg2video":  # it can only say the shape of the whole picture
        aspect = {Fraction(4, 3): Fraction(16, 9)}.get(aspect, Fraction(4, 3)) / Fraction(192, 128)
    shown = round(192 * aspect), 128
    path = write_streams(
        tmp_path / f"wide{suffix}", Pictures(duration=0.4, aspect=aspect, codec=codec)
    )
    stream = Video().probe(path).video
    assert (stream.width, stream.height) == shown
    assert float(stream.pixel_aspect) == pytest.approx(float(aspect), rel=1e-3)
    image = first(path, backend=backend)
    assert image.shape == (128, shown[0], 3)
    # the red quarter ends in the middle, whatever the width
    assert image[8, shown[0] // 2 - 6].argmax() == 0
    assert image[8, shown[0] // 2 - 6].max() > 180
    assert image[8, shown[0] // 2 + 6].max() < 60


def test_pixels_are_made_square_before_turning(tmp_path):
    """A phone held upright that stores 2:1 pixels"""
    pictures = Pictures(duration=0.2, aspect=Fraction(2), matrix=(0, 1, -1, 0))
    path = write_streams(tmp_path / "both.mp4", pictures)
    stream, image = Video().probe(path).video, first(path)
    assert (stream.width, stream.height) == (128, 384)
    assert image.shape == (384, 128, 3)
    assert image[: 384 // 2 - 10, -20].max(axis=-1).min() > 180  # the red quarter


@pytest.mark.parametrize("aspect", [Fraction(1000), Fraction(1, 1000)])
def test_absurd_pixels_are_ignored(tmp_path, aspect):
    path = write_streams(tmp_path / "odd.mkv", Pictures(duration=0.2, aspect=aspect))
    assert first(path).shape == (128, 192, 3)


def test_sizes():
    assert square_size(720, 576, Fraction(64, 45)) == (1024, 576)
    assert square_size(720, 480, Fraction(8, 9)) == (640, 480)
    assert square_size(640, 360, Fraction(1001, 1000)) == (640, 360)
    assert fit((1280, 720), (640, 360)) == (640, 360)
    assert fit((360, 640), (640, 360)) == (202, 360)


# --- faces --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="needs scikit-image: pip install '.[sample]'")
    import cv2

    image = np.zeros((288, 512, 3), np.uint8) + 90
    image[:, 200:488] = cv2.resize(data.astronaut(), (288, 288), interpolation=cv2.INTER_AREA)
    return image


def faces_of(path, tmp_path) -> FaceTracks:
    from pyannote_av.pipelines.face_tracking import FaceTracking

    tracking = FaceTracking(embedder=None).instantiate(
        {"stride": 5, "max_gap": 0.6, "min_duration": 0.2}
    )
    tracks = tracking(path)
    tracks.write(tmp_path / "tracks.json")
    return FaceTracks.read(tmp_path / "tracks.json")


@pytest.mark.parametrize(
    "how",
    [
        {"size": (256, 288), "aspect": Fraction(2)},
        {"matrix": (-1, 0, 0, 1)},
        {"matrix": (0, 1, 1, 0)},
        {"size": (256, 288), "aspect": Fraction(2), "matrix": (0, -1, 1, 0)},
    ],
    ids=["2:1 pixels", "mirrored", "transposed", "2:1 pixels, sideways"],
)
def test_faces_are_found_where_they_are_shown(portrait, tmp_path, how):
    """The same face, in the same place, as in a file that needs nothing"""
    import cv2

    plain = write_streams(
        tmp_path / "plain.mp4",
        Pictures(draw=lambda t: portrait, size=(512, 288), duration=0.4),
    )
    expected = faces_of(plain, tmp_path)
    stored, size = portrait, how.get("size", (512, 288))
    if matrix := how.get("matrix"):
        a, b, c, d = matrix
        determinant = a * d - b * c
        inverse = d * determinant, -b * determinant, -c * determinant, a * determinant
        stored = placed(stored, inverse)
        if a == 0:
            # with pixels of twice the width, half as many columns make 288
            size = (144, 512) if how.get("aspect") else stored.shape[1::-1]
    stored = cv2.resize(stored, size, interpolation=cv2.INTER_AREA)
    path = write_streams(
        tmp_path / "other.mp4",
        Pictures(draw=lambda t: stored, duration=0.4, **{**how, "size": size}),
    )
    found = faces_of(path, tmp_path)
    assert found.frame_size == expected.frame_size == (512, 288)
    assert len(found.tracks) == len(expected.tracks) == 1
    assert np.abs(found.box[0] - expected.box[0]).max() < 0.02
    # where nothing is mirrored, the left eye stays left
    assert (found.landmarks[:, 0, 0] < found.landmarks[:, 1, 0]).all()


# --- size that changes --------------------------------------------------------------------------


def joined(tmp_path, *parts: Pictures) -> Path:
    """Transport stream of parts, one behind the other on the clock"""
    path, start = tmp_path / "joined.ts", 0.0
    content = b""
    for number, part in enumerate(parts):
        part.start = start
        start += part.duration
        piece = write_streams(tmp_path / f"{number}.ts", part, output_ts_offset="1")
        content += piece.read_bytes()
    path.write_bytes(content)
    return path


GREY = {"codec": "mpeg2video", "duration": 1.0}


def test_same_shape_larger_is_scaled_and_told(tmp_path):
    path = joined(
        tmp_path,
        Pictures(size=(192, 128), **GREY),
        Pictures(size=(384, 256), **GREY),
    )
    problems = []
    frames = list(Video().frames(path, problems=problems))
    assert {f.image.shape for f in frames} == {(128, 192, 3)}
    assert grey_difference(path, -1) < 3
    assert len(frames) == pytest.approx(50, abs=1)
    assert media.read_time(frames[-2].image) == pytest.approx(frames[-2].time, abs=0.05)
    assert any("from 192x128 to 384x256 at 1.0" in p for p in problems)


def test_another_shape_is_not_squeezed(tmp_path):
    """A phone turned in a call: the upright picture is shown whole between black borders"""
    square = np.zeros((192, 128, 3), np.uint8) + 40
    square[64:128, 32:96] = (250, 250, 250)
    path = joined(
        tmp_path,
        Pictures(size=(192, 128), **GREY),
        Pictures(size=(128, 192), draw=lambda t: square, **GREY),
    )
    problems = []
    frames = list(Video().frames(path, problems=problems))
    image = frames[-1].image
    assert grey_difference(path, -1) < 3
    assert image.shape == (128, 192, 3)
    white = image.min(axis=-1) > 180
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    assert abs((np.ptp(rows) + 1) - (np.ptp(columns) + 1)) <= 2  # a square is a square
    assert abs(np.mean(columns) - 95.5) < 1.5
    assert not image[:, :40].max() > 30
    assert any("changes the size of its pictures" in p for p in problems)


def test_pixels_that_change_are_followed(tmp_path):
    """Television: 4:3 and 16:9 follow each other in one size of coded pictures"""
    path = joined(
        tmp_path,
        Pictures(size=(192, 128), aspect=Fraction(4, 3) / Fraction(3, 2), **GREY),
        Pictures(size=(192, 128), aspect=Fraction(16, 9) / Fraction(3, 2), **GREY),
    )
    frames = list(Video().frames(path, problems=[]))
    assert frames[0].image.shape == frames[-1].image.shape == (128, 171, 3)
    # the wide picture fits in the width, between black borders above and below
    assert frames[-1].image[:10].max() < 40
    assert frames[0].image[:10].max() > 180


# --- grey and small pictures --------------------------------------------------------------------

INTERLACED = {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme", "b": "8000000"}}


def ramp(t: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Every level of grey, darker towards the top"""
    width, height = size
    levels = np.linspace(0, 255, width)[None] * np.linspace(0.5, 1, height)[:, None]
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=-1)


KINDS = {
    "plain.mp4": {},
    "mirrored.mp4": {"matrix": (-1, 0, 0, 1)},
    "sideways.mp4": {"matrix": (0, 1, -1, 0)},
    "wide.mp4": {"aspect": Fraction(4, 3)},
    "wide sideways.mp4": {"aspect": Fraction(2), "matrix": (0, -1, 1, 0)},
    "interlaced.ts": INTERLACED,
    "full.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "ten.mkv": {"pixels": "yuv420p10le"},
    "grey.mkv": {"pixels": "gray"},
    "lossless grey.mkv": {"codec": "ffv1", "pixels": "gray"},
}


@pytest.mark.parametrize("name", KINDS)
def test_grey_is_the_luma_of_the_picture(tmp_path, name):
    """As bright, with the same contrast, and in the same place"""
    path = write_streams(tmp_path / name, Pictures(draw=ramp, duration=0.2, **KINDS[name]))
    assert grey_difference(path) < 2
    frame = next(Video().frames(path))
    assert frame.grey.shape == frame.image.shape[:2] == frame.size[::-1]
    luma = frame.image.mean(axis=-1)
    slope, offset = np.polyfit(luma.ravel(), frame.grey.ravel().astype(float), 1)
    assert slope == pytest.approx(1, abs=0.01)
    assert offset == pytest.approx(0, abs=2)


@pytest.mark.parametrize("name", KINDS)
def test_sampled_pictures_show_the_same(tmp_path, name):
    import cv2

    pictures = Pictures(draw=lambda t: media.draw_time(t, (384, 256)), size=(384, 256))
    pictures.duration = 0.2
    for key, value in KINDS[name].items():
        setattr(pictures, key, value)
    frame = next(Video().frames(write_streams(tmp_path / name, pictures)))
    width, height = frame.size
    small = frame.sampled(width // 3, height // 3)
    assert small.shape == (math.ceil(height / 3), math.ceil(width / 3), 3)
    expected = cv2.resize(frame.image, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert difference(small, expected) < 6
    # the whole picture, if it is not twice as large
    assert frame.sampled(width // 2 + 1, height) is frame.image


@pytest.mark.parametrize("color_range", [0, 1, 2], ids=["unknown", "16 to 235", "0 to 255"])
@pytest.mark.parametrize(
    "pixels", ["yuv420p", "yuvj420p", "yuv444p", "nv12", "yuva420p", "yuv410p", "gray", "ya8"]
)
def test_luma_is_that_of_swscale(pixels, color_range):
    """It is read from the decoded picture where it is there, which is faster"""
    frame = av.VideoFrame.from_ndarray(ramp(0, (100, 76)), format="rgb24").reformat(format=pixels)
    frame.color_range = color_range
    expected = frame.to_ndarray(format="gray")
    assert np.array_equal(Scaler()(frame, "gray", (100, 76), "BILINEAR"), expected)
    assert np.ptp(expected) > 200


def test_luma_of_pictures_stored_upside_down():
    frame = av.VideoFrame.from_ndarray(ramp(0), format="rgb24").reformat(format="yuv420p")
    graph = av.filter.Graph()
    source = graph.add_buffer(width=192, height=128, format="yuv420p")
    graph.link_nodes(source, graph.add("vflip"), graph.add("buffersink")).configure()
    graph.push(frame)
    flipped = graph.pull()
    assert flipped.planes[0].line_size < 0
    upright, turned = (Scaler()(one, "gray", SIZE, "BILINEAR") for one in (frame, flipped))
    assert np.array_equal(turned, upright[::-1])


def test_grey_does_not_depend_on_what_was_asked_before(tmp_path):
    path = write_streams(tmp_path / "plain.mp4", Pictures(duration=0.2))
    one, other = (next(Video().frames(path)) for _ in range(2))
    image, grey = one.image, other.grey
    assert np.array_equal(one.grey, grey)
    assert np.array_equal(other.image, image)


def test_grey_of_pictures_in_memory():
    image = patches(SIZE)
    (frame,) = Video().frames({"frames": image[None], "timestamps": np.zeros(1)})
    assert frame.size == SIZE
    assert np.abs(frame.grey - image @ (0.299, 0.587, 0.114)).max() <= 1
    assert np.array_equal(frame.sampled(SIZE[0] // 2, SIZE[1] // 2), image[::2, ::2])


# --- interlacing --------------------------------------------------------------------------------


def moving(t: float) -> np.ndarray:
    image = np.zeros((128, 192, 3), np.uint8) + 60
    left = int(20 + 200 * t)
    image[30:100, left : left + 30] = 220
    return image


def woven(t: float) -> np.ndarray:
    """The second field is 20 ms later than the first"""
    image = moving(t)
    image[1::2] = moving(t + 0.02)[1::2]
    return image


@pytest.mark.parametrize("backend", BACKENDS)
def test_interlaced_pictures_have_no_comb(tmp_path, backend):
    pictures = Pictures(
        draw=woven,
        duration=0.4,
        codec="mpeg2video",
        options={"flags": "+ildct+ilme", "b": "8000000"},
    )
    path = write_streams(tmp_path / "interlaced.ts", pictures)
    assert Video().probe(path).video.interlaced
    frame = list(Video(backend=backend).frames(path))[5]
    assert difference(frame.image, moving(frame.time)) < 6
    assert difference(frame.grey, moving(frame.time)[..., 0]) < 6
    edges = np.abs(np.diff(frame.image[34:96].astype(int).mean(axis=-1), axis=0))
    assert edges.max() < 60


def test_lines_of_one_moment_are_kept():
    rng = np.random.default_rng(0)
    still = np.kron(rng.integers(0, 255, (16, 24, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    assert np.array_equal(deinterlace(still), still)
    assert np.array_equal(deinterlace(still[:3]), still[:3])
    image = woven(0.1)[:127]
    out = deinterlace(image)
    assert np.array_equal(deinterlace(image[..., 0]), out[..., 0])
    assert np.array_equal(out[::2], image[::2])
    assert np.array_equal(image, woven(0.1)[:127])
    assert difference(out, moving(0.1)[:127]) < difference(image, moving(0.1)[:127]) / 3


def test_progressive_pictures_are_left_alone(tmp_path):
    path = write_streams(tmp_path / "p.ts", Pictures(draw=woven, duration=0.2, codec="mpeg2video"))
    assert not Video().probe(path).video.interlaced
    with av.open(str(path)) as container:
        raw = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.array_equal(first(path), raw)


# --- formats of pixels --------------------------------------------------------------------------

COLOURS = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200), (128, 128, 128)], np.uint8)


def patches(size: tuple[int, int]) -> np.ndarray:
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    for k, colour in enumerate(COLOURS):
        image[:, k * width // 4 : (k + 1) * width // 4] = colour
    return image


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "size"),
    [
        ("odd.mkv", "libx264", "yuv444p", (101, 77)),
        ("odd420.mkv", "ffv1", "yuv420p", (101, 77)),
        ("ten.mkv", "libx264", "yuv420p10le", (192, 128)),
        ("twelve.mkv", "libx265", "yuv420p12le", (192, 128)),
        ("full.avi", "mjpeg", "yuvj420p", (192, 128)),
        ("alpha.webm", "libvpx-vp9", "yuva420p", (192, 128)),
        ("alpha.mov", "png", "rgba", (192, 128)),
        ("deep.mov", "png", "rgb48be", (192, 128)),
        ("prores.mov", "prores_ks", "yuv422p10le", (192, 128)),
        ("palette.gif", "gif", "rgb8", (192, 128)),
        ("grey.mkv", "ffv1", "gray", (192, 128)),
        ("grey16.mov", "png", "gray16be", (192, 128)),
        ("bits.mov", "png", "monob", (192, 128)),
    ],
)
def test_formats_of_pixels(tmp_path, name, codec, pixels, size):
    drawn = patches(size)
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    pictures = Pictures(
        draw=lambda t: drawn,
        duration=0.2,
        codec=codec,
        pixels=pixels,
        size=size,
        options=options,
    )
    path = write_streams(tmp_path / name, pictures)
    image = first(path)
    assert image.shape == (size[1], size[0], 3)
    assert image.dtype == np.uint8
    assert grey_difference(path) < 3
    centres = image[size[1] // 2, [size[0] * (2 * k + 1) // 8 for k in range(4)]].astype(int)
    if "gr" in name or "bits" in name:
        assert (np.ptp(centres, axis=1) <= 2).all()
        if "bits" not in name:
            luma = COLOURS @ (0.299, 0.587, 0.114)
            assert np.abs(centres[:, 0] - luma).max() < 8
    else:
        tolerance = 60 if codec == "gif" else 14
        assert np.abs(centres - COLOURS).max() < tolerance


def test_palette_of_a_film(tmp_path):
    """Screen recorders write indices of colours"""
    size = (192, 128)
    indices = np.repeat(np.arange(4, dtype=np.uint8), 48)[None].repeat(128, axis=0)
    palette = np.zeros((256, 4), np.uint8)
    palette[:4, 1:] = COLOURS
    palette[:, 0] = 255

    def draw(t):
        return av.VideoFrame.from_ndarray((np.ascontiguousarray(indices), palette), format="pal8")

    pictures = Pictures(draw=draw, size=size, duration=0.2, codec="png", pixels="pal8")
    path = write_streams(tmp_path / "screen.mov", pictures)
    assert grey_difference(path) < 3
    image = first(path)
    centres = image[64, [24, 72, 120, 168]].astype(int)
    assert np.abs(centres - COLOURS).max() < 3


def test_high_dynamic_range_looks_as_it_does_on_a_screen(tmp_path):
    """White paper in PQ has code 0.58, which is a dark grey if it is shown as it is"""

    def grey(level):
        nits = level * 203 / 10_000
        power = nits**0.1593017578125
        code = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
        return np.full((128, 192, 3), round(255 * code), np.uint8)

    def setup(stream):
        stream.codec_context.color_trc = 16

    shown = {}
    for level in (0.02, 0.2, 1.0):
        pictures = Pictures(
            draw=lambda t, level=level: grey(level),
            duration=0.2,
            codec="libx265",
            pixels="yuv420p10le",
            options={"x265-params": "log-level=none"},
            setup=setup,
        )
        path = write_streams(tmp_path / f"{level}.mp4", pictures)
        assert Video().probe(path).video.transfer == 16
        shown[level] = float(first(path).mean())
        assert grey_difference(path) < 5
    assert shown[0.02] == pytest.approx(43, abs=10)
    assert shown[0.2] == pytest.approx(113, abs=15)
    assert 170 < shown[1.0] < 230


# --- several video streams ----------------------------------------------------------------------


def plain(colour: tuple[int, int, int], size=(64, 48), **how) -> Pictures:
    image = np.zeros((size[1], size[0], 3), np.uint8) + np.uint8(colour)
    return Pictures(draw=lambda t: image, size=size, **{"duration": 0.4, **how})


RED, GREEN = (220, 30, 30), (30, 220, 30)
DEFAULT, ORIGINAL, COMMENT, ATTACHED = 1, 4, 8, 1024


@pytest.mark.parametrize(
    ("name", "streams", "index"),
    [
        ("default.mkv", [plain(RED, (96, 64)), plain(GREEN, flags=DEFAULT)], 1),
        ("two flags.mkv", [plain(RED, (96, 64)), plain(GREEN, flags=DEFAULT | ORIGINAL)], 1),
        ("largest.mkv", [plain(RED), plain(GREEN, (96, 64))], 1),
        ("first.mkv", [plain(GREEN), plain(RED)], 0),
        ("both default.mp4", [plain(RED, flags=1), plain(GREEN, (96, 64), flags=1)], 1),
        (
            "thumbnail.mp4",
            [
                plain(RED, (128, 96), codec="mjpeg", pixels="yuvj420p", duration=0.04, flags=1),
                plain(GREEN, flags=DEFAULT),
            ],
            1,
        ),
        (
            "thumbnails.mkv",
            [
                plain(RED, (128, 96), codec="mjpeg", pixels="yuvj420p", fps=5, flags=DEFAULT),
                plain(GREEN),
            ],
            1,
        ),
        (
            "cover.mp4",
            [plain(GREEN), plain(RED, (128, 96), codec="png", pixels="rgb24", flags=ATTACHED)],
            0,
        ),
        ("preview.mkv", [plain(RED, flags=DEFAULT), plain(GREEN, (256, 192))], 1),
        ("a preview on purpose.mkv", [plain(RED, (256, 192)), plain(GREEN, flags=DEFAULT)], 1),
        ("commentator.mkv", [plain(RED, (96, 64), flags=COMMENT), plain(GREEN)], 1),
    ],
)
def test_which_video_stream(tmp_path, name, streams, index):
    path = write_streams(tmp_path / name, *streams, Sound(duration=0.4))
    video = Video()
    assert video.probe(path).video.index == index
    for backend in BACKENDS:
        assert first(path, backend=backend)[24, 24].argmax() == 1
    (used,) = (row for row in video.streams(path) if row["kind"] == "video" and row["used"])
    assert used["index"] == index


@pytest.mark.parametrize("name", ["song.mp4", "song.mp3", "song.flac"])
def test_cover_art_is_no_video(tmp_path, name):
    codec = {"mp4": "aac", "mp3": "libmp3lame", "flac": "flac"}[name.partition(".")[2]]
    cover = plain(RED, codec="mjpeg", pixels="yuvj420p", duration=0.04, flags=ATTACHED)
    path = write_streams(tmp_path / name, Sound(codec=codec), cover)
    video = Video()
    assert video.probe(path).video is None
    assert video.get_duration(path) == pytest.approx(1.0, abs=0.06)
    rows = {row["kind"]: row for row in video.streams(path)}
    assert rows["video"]["used"] is False
    assert "cover art" in rows["video"]["reason"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert video.waveform(path).abs().max() > 0.2


# --- rates --------------------------------------------------------------------------------------


def test_rate_that_changes_in_the_middle(tmp_path):
    """Screen recorders write a picture when something moves"""
    times = [0, 0.04, 0.08, 0.12, 1.5, 1.54, 1.58, 3.0, 3.4]
    path = media.write_media(tmp_path / "vfr.mkv", timestamps=times, audio=False)
    problems = []
    frames = list(Video().frames(path, problems=problems))
    assert problems == []
    for frame in frames:
        shown = max(t for t in times if t < frame.time + 0.019)
        assert media.read_time(frame.image) == pytest.approx(shown, abs=1e-3)
