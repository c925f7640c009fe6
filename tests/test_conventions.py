"""What users of pyannote.audio pass works here, or the error says what to write instead."""

from __future__ import annotations

import io
import pickle
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conversations import voice
from media import bursts, write_media
from pyannote.database import ProtocolFile
from scipy.io import wavfile

from pyannote_av import Model, Pipeline, Video
from pyannote_av.core.counts import number_of_speakers, speaker_bounds
from pyannote_av.core.files import MediaError
from pyannote_av.core.pipeline import as_device

RATE = 16000


def silence(t: np.ndarray) -> np.ndarray:
    return np.zeros(len(t), np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two sounds, and a stereo file with one on each side"""
    folder = tmp_path_factory.mktemp("sounds")
    sides = [voice(110, 2.0, 0), voice(210, 2.0, 1)]
    sides = [(0.5 * side / np.abs(side).max() * 32767).astype(np.int16) for side in sides]
    for name, samples in (("left", sides[0]), ("right", sides[1])):
        wavfile.write(folder / f"{name}.wav", RATE, samples)
    wavfile.write(folder / "stereo.wav", RATE, np.stack(sides, axis=1))
    return folder


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.from_pretrained("audio")


def turns(output) -> list[tuple[float, float, str]]:
    found = output.speaker_diarization.itertracks(yield_label=True)
    return [(round(s.start, 3), round(s.end, 3), label) for s, _, label in found]


# --- channels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channel", "alone"), [(0, "left"), (1, "right"), ("1", "right")])
def test_one_channel_is_that_channel_alone(folder, channel, alone):
    expected = Video().waveform(folder / f"{alone}.wav")
    got = Video().waveform({"audio": folder / "stereo.wav", "channel": channel})
    assert torch.equal(got, expected)
    rate, samples = wavfile.read(folder / "stereo.wav")
    memory = {"waveform": samples.T, "sample_rate": rate, "channel": channel}
    assert torch.allclose(Video().waveform(memory), expected, atol=1e-4)


@pytest.mark.slow
def test_a_channel_in_a_pipeline(folder, pipeline):
    for channel, alone in enumerate(("left", "right")):
        file = {"audio": folder / "stereo.wav", "channel": channel}
        prepared = pipeline.prepare_one(dict(file))
        assert torch.equal(prepared["waveform"], Video().waveform(folder / f"{alone}.wav"))
        assert turns(pipeline(file)) == turns(pipeline(folder / f"{alone}.wav"))
        assert file == {"audio": folder / "stereo.wav", "channel": channel}
    lazy = ProtocolFile({"uri": "a", "channel": 1}, lazy={"audio": lambda _: folder / "stereo.wav"})
    assert turns(pipeline(lazy)) == turns(pipeline(folder / "right.wav"))
    assert lazy["channel"] == 1


def test_channels_of_a_compressed_video(tmp_path):
    def sound(t):
        return np.stack([bursts(t), silence(t)])

    write_media(tmp_path / "a.mkv", layout="stereo", audio_signal=sound, duration=2.0)
    loud, quiet = (
        Video().waveform({"video": tmp_path / "a.mkv", "channel": i}).abs().max() for i in (0, 1)
    )
    assert loud > 0.3
    assert quiet < 0.05


@pytest.mark.parametrize(
    ("channel", "says"),
    [
        (2, "has no channel 2: it has channels 0 to 1"),
        (-1, "'channel' is -1: it must be a whole number of at least 0"),
        ("left", "'channel' is 'left'"),
        (0.5, "'channel' is 0.5"),
        (True, "'channel' is True"),
    ],
)
def test_channels_that_are_none(folder, channel, says):
    rate, samples = wavfile.read(folder / "stereo.wav")
    for file in (
        {"audio": folder / "stereo.wav"},
        {"waveform": samples.T, "sample_rate": rate},
    ):
        with pytest.raises(MediaError, match=says):
            Video().waveform({**file, "channel": channel})


# --- open files ----------------------------------------------------------------------------------


def test_open_files_are_processed_like_paths(folder, pipeline):
    path = folder / "left.wav"
    expected = turns(pipeline(path))
    with open(path, "rb") as file:
        file.seek(7)
        output = pipeline(file)
        assert turns(output) == expected
        assert output.speaker_diarization.uri == "left"
        assert not file.closed
        assert file.tell() == 7
    content = io.BytesIO(path.read_bytes())
    output = pipeline({"audio": content})
    assert turns(output) == expected
    assert output.speaker_diarization.uri == "stream"
    assert pipeline({"audio": content, "uri": "x"}).speaker_diarization.uri == "x"
    with tempfile.NamedTemporaryFile(suffix=".wav") as temporary:
        temporary.write(path.read_bytes())
        temporary.flush()
        assert turns(pipeline(temporary)) == expected
    stereo = io.BytesIO((folder / "stereo.wav").read_bytes())
    assert turns(pipeline({"audio": stereo, "channel": 0})) == expected
    files = [{"audio": content, "uri": "x"}, path]
    assert [turns(output) for _, output in pipeline(files)] == [expected, expected]


def test_what_is_no_file(folder, pipeline):
    with (
        open(folder / "left.wav", encoding="latin-1") as text,
        pytest.raises(
            ValueError, match=r"left\.wav is open as text: open it with open\(\.\.\., 'r"
        ),
    ):
        pipeline(text)
    for given in (b"RIFF", np.zeros(9), (np.zeros(9), RATE)):
        with pytest.raises(MediaError, match="a file is the path of a file on disk, a str or a P"):
            pipeline({"audio": given})
    with pytest.raises(MediaError, match=r"pipelines take open files"):
        Video().waveform(io.BytesIO(b""))
    with pytest.raises(MediaError, match="no such file"):
        pipeline("nothing.wav")


# --- waveforms in memory -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(folder) -> np.ndarray:
    return wavfile.read(folder / "left.wav")[1]


FORMS = {
    "int16 array": lambda x: x,
    "one row": lambda x: x[None],
    "int16 tensor": torch.from_numpy,
    "int32": lambda x: x.astype(np.int32) << 16,
    "float64": lambda x: x / 32768,
    "float16 tensor": lambda x: torch.from_numpy(x / 32768).half(),
    "stereo": lambda x: np.stack([x, x]),
    "big end first": lambda x: x.astype(">i2"),
    "reversed twice": lambda x: x[::-1].copy()[::-1],
    "with gradient": lambda x: torch.from_numpy(x / 32768).requires_grad_(),
    "list": lambda x: (x / 32768).tolist(),
    "uint8": lambda x: (x // 256 + 128).astype(np.uint8),
}


@pytest.mark.parametrize("form", FORMS)
def test_waveforms_of_all_forms(form, samples):
    waveform = Video().waveform({"waveform": FORMS[form](samples), "sample_rate": RATE})
    assert waveform.dtype == torch.float32
    tolerance = {"uint8": 1 / 128, "float16 tensor": 1e-3}.get(form, 1e-6)
    assert np.abs(waveform.numpy() - samples[None] / 32768).max() <= tolerance


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda x: np.stack([x, x], axis=1), r"it is \(time, channel\); pass its transpose"),
        (lambda x: x.astype(np.float32), r"reaches \d+, but samples lie within \[-1, 1\]: divide"),
        (lambda x: x.astype(np.int64), r"holds torch.int64 samples: pass floats"),
        (lambda x: x > 0, r"holds torch.bool samples"),
        (lambda x: x + 0j, "must hold real numbers"),
        (lambda x: x[:0], r"not \(1, 0\)"),
        (lambda x: x[None, None], r"not \(1, 1, 32000\)"),
        (lambda x: "abc", "must be provided as a torch Tensor"),
    ],
)
def test_waveforms_that_would_be_misread(wrong, says, samples):
    with pytest.raises(MediaError, match=says):
        Video().waveform({"waveform": wrong(samples), "sample_rate": RATE})


def test_sample_rates(samples):
    for rate in (RATE, 16000.0, np.int64(RATE)):
        assert Video().waveform({"waveform": samples, "sample_rate": rate}).shape == (1, 32000)
    for rate in (None, "16000", 16000.5, 16):
        with pytest.raises(MediaError, match="'sample_rate', a whole number of Hz"):
            Video().waveform({"waveform": samples, "sample_rate": rate})


def test_the_caller_s_data_are_never_changed(folder, pipeline, samples):
    """State between calls: the second call reads the second file"""
    first, second = turns(pipeline(folder / "left.wav")), turns(pipeline(folder / "right.wav"))
    file = {"audio": folder / "left.wav"}
    assert turns(pipeline(file)) == first
    file["audio"] = folder / "right.wav"
    assert turns(pipeline(file)) == second
    assert file == {"audio": folder / "right.wav"}
    before = samples.copy()
    waveform = torch.from_numpy(samples / 32768)[None]
    kept = waveform.clone()
    memory = {"waveform": waveform, "sample_rate": RATE}
    assert turns(pipeline(memory)) == first
    assert list(memory) == ["waveform", "sample_rate"]
    assert torch.equal(waveform, kept)
    assert (samples == before).all()
    lazy = ProtocolFile({"uri": "a"}, lazy={"audio": lambda _: folder / "left.wav"})
    assert turns(pipeline(lazy)) == first
    assert "waveform" not in lazy
    files = [{"audio": folder / "left.wav", "uri": str(i)} for i in range(2)]
    assert [turns(output) for _, output in pipeline(files)] == [first, first]
    assert all(set(one) == {"audio", "uri"} for one in files)


# --- numbers of speakers -------------------------------------------------------------------------


@pytest.mark.parametrize("value", [2, "2", " 2 ", 2.0, "2.0", np.int64(2), np.float32(2)])
def test_numbers_of_speakers(value):
    assert number_of_speakers(value) == 2
    assert type(number_of_speakers(value)) is int


@pytest.mark.parametrize(
    "value", [0, -1, "0", "two", "", 2.5, "2.5", "-2", True, float("nan"), float("inf"), [2], 1e9]
)
def test_what_is_no_number_of_speakers(value):
    with pytest.raises(
        ValueError, match=r"num_speakers: .* is not a number of speakers. Give a whole"
    ):
        number_of_speakers(value)


def test_bounds_that_contradict_one_another():
    assert speaker_bounds(None, "1", float("inf")) == {
        "num_speakers": None,
        "min_speakers": 1,
        "max_speakers": None,
    }
    for given, says in (
        ({"min_speakers": 3, "max_speakers": 2}, "min_speakers=3 is more than max_speakers=2"),
        ({"num_speakers": 2, "min_speakers": "3"}, "min_speakers=3 is more than num_speakers=2"),
        ({"num_speakers": 4, "max_speakers": 3}, "num_speakers=4 is more than max_speakers=3"),
    ):
        with pytest.raises(ValueError, match=says):
            speaker_bounds(**given)


def test_numbers_of_speakers_in_a_pipeline(folder, pipeline):
    path = folder / "left.wav"
    assert turns(pipeline(path, num_speakers="1")) == turns(pipeline(path, num_speakers=1))
    assert turns(pipeline(path, max_speakers=float("inf"))) == turns(pipeline(path))
    for given in ({"num_speakers": 0}, {"min_speakers": 3, "max_speakers": "2"}):
        with pytest.raises(ValueError, match=r"not a number of speakers|is more than"):
            pipeline(path, **given)


# --- devices, tokens, output ---------------------------------------------------------------------


def test_devices_may_be_named(pipeline):
    for device in ("cpu", torch.device("cpu")):
        assert pipeline.to(device) is pipeline
        assert pipeline.device == torch.device("cpu")
    for device in ("gpu", "cuda:x", None, 1.5):
        with pytest.raises(
            ValueError, match="is not a device: write 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ):
            pipeline.to(device)
    number = torch.cuda.device_count()
    with pytest.raises(ValueError, match=f"this machine has {number} CUDA devices"):
        as_device(f"cuda:{number}")
    if not torch.backends.mps.is_available():
        with pytest.raises(ValueError, match="no device 'mps'"):
            as_device("mps")


def test_the_former_name_of_the_token():
    with pytest.warns(UserWarning, match="use_auth_token is now called token"):
        assert Pipeline.from_pretrained("audio", use_auth_token="hf_x")
    with (
        pytest.warns(UserWarning, match="use_auth_token is now called token"),
        pytest.raises(FileNotFoundError, match="no such path"),
    ):
        Model.from_pretrained("/nothing.ckpt", use_auth_token=True)


def test_revisions_in_names():
    with pytest.raises(FileNotFoundError, match=r"'pyannote/x' with revision='2\.1'"):
        Pipeline.from_pretrained("pyannote/x@2.1")


def test_output_can_be_used_as_that_of_pyannote_3(folder, pipeline, tmp_path):
    output = pipeline(folder / "left.wav")
    turns = output.speaker_diarization
    assert list(output.itertracks(yield_label=True)) == list(turns.itertracks(yield_label=True))
    assert output.labels() == turns.labels()
    with pytest.raises(ValueError, match="take speaker_embeddings of the output"):
        pipeline(folder / "left.wav", return_embeddings=True)
    with open(tmp_path / "a.rttm", "w") as file:
        output.write_rttm(file)
    assert (tmp_path / "a.rttm").read_text() == turns.to_rttm()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        output.nonsense  # noqa: B018
    copy = pickle.loads(pickle.dumps(output))
    assert copy.speaker_diarization == turns


# --- encrypted media -----------------------------------------------------------------------------


def scramble(path: Path) -> None:
    """Mark the packets of a transport stream as scrambled"""
    content = bytearray(path.read_bytes())
    for i in range(0, len(content), 188):
        if content[i + 3] & 0x10:
            content[i + 3] |= 0x80
    path.write_bytes(content)


def test_encrypted_mp4(tmp_path):
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    for name, given in (("plain.mp4", {}), ("encrypted.mp4", options)):
        with av.open(str(tmp_path / name), "w", options=given) as container:
            stream = container.add_stream("aac", rate=RATE, layout="mono")
            for i in range(20):
                frame = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
                )
                frame.sample_rate, frame.pts = RATE, 1024 * i
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert Video().waveform(tmp_path / "plain.mp4", []).shape[1] > 0
    with pytest.raises(MediaError, match=r"encrypted\.mp4 is encrypted or copy-protected \(MP4\)"):
        Video().waveform(tmp_path / "encrypted.mp4", [])


def test_scrambled_transport_streams(tmp_path):
    for name in ("plain.ts", "scrambled.ts"):
        write_media(tmp_path / name, duration=1.0)
    assert Video().probe(tmp_path / "plain.ts").audio
    scramble(tmp_path / "scrambled.ts")
    with pytest.raises(MediaError, match=r"scrambled\.ts is encrypted .*\(transport stream\)"):
        Video().probe(tmp_path / "scrambled.ts")


def test_scrambled_dvds(tmp_path):
    path = write_media(
        tmp_path / "a.vob", duration=1.0, video_codec="mpeg2video", audio_codec="mp2"
    )
    assert Video().probe(path).video
    content = bytearray(path.read_bytes())
    for i in range(len(content) - 6):
        if content[i : i + 3] == b"\0\0\1" and content[i + 3] in (0xC0, 0xE0):
            content[i + 6] |= 0x30 if content[i + 6] & 0xC0 == 0x80 else 0
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.vob is encrypted .*\(DVD\)"):
        Video().probe(path)


def test_protected_windows_media(tmp_path):
    path = write_media(tmp_path / "a.wma", duration=1.0, video=False, audio_codec="mp2")
    assert Video().probe(path).audio
    content = path.read_bytes()
    # an object of the header that is not needed becomes one of encryption, with empty fields
    first = content.index(bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365"))
    mark = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")
    size = content[first + 16 : first + 24]
    path.write_bytes(content[:first] + mark + size + bytes(22) + content[first + 46 :])
    with pytest.raises(MediaError, match=r"a\.wma is encrypted .*\(Windows Media\)"):
        Video().probe(path)
