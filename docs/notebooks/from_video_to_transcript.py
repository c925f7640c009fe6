# %% [markdown]
# # From a video to a corrected, named transcript
#
# This notebook diarizes a video, looks at the result, names the speakers, gives each word of a
# transcript its speaker, corrects a turn, and writes subtitles. It runs offline in a minute or two
# on a CPU. For a video of your own, replace `video` and `said`.
#
# The sample is synthetic: two portraits whose mouths move with the sound of a telephone
# conversation. It shows how the package is used, not how good the results are.

# %%
from pyannote_av.simulation.sample import make_sample

video = make_sample("sample")["video"]

# %% [markdown]
# ## Diarize
#
# One call returns who spoke when and where they are in the picture.

# %%
from pyannote_av import Pipeline

pipeline = Pipeline.from_pretrained("hmsanet")
output = pipeline(video)
output

# %% [markdown]
# Open "report" above, or print it. It says whether the picture was used, what it changed, and which
# problems the file has:

# %%
print(output.report)

# %% [markdown]
# The face tracks carry the labels of the speakers:

# %%
output.face_tracks.show(video, speakers=output.speaker_diarization.labels())

# %% [markdown]
# `plot` draws the turns. Thick parts are on screen, thin ones off screen. `to_pandas` gives a
# table.

# %%
output.plot()
# %%
output.to_pandas().head()

# %% [markdown]
# ## Name the speakers
#
# The pictures above show who is who. The one on the left is called Ann here, the other one Eve:

# %%
faces = output.face_tracks
left_first = sorted(faces.tracks, key=lambda track: faces.of(track).box[:, 0].mean())
names = dict(zip([faces.speaker[track] for track in left_first], ["Ann", "Eve"], strict=True))
output = output.rename(names)
output.speaker_diarization.labels()

# %% [markdown]
# ## Who says which word
#
# `pyannote_av` does not recognise speech. It reads the transcripts of Whisper, WhisperX,
# faster-whisper and others, and SRT, WebVTT, CTM and STM. A file `said.json` as Whisper writes it
# would come from:
#
# ```
# whisper sample.mp4 --word_timestamps True --output_format json
# ```
#
# Here, it is made from the reference of the sample, so that nothing has to be downloaded. The words
# are invented: Ann counts, and Eve says letters. Where Ann has a letter or Eve a number, the word
# has the wrong speaker. Here, two words of overlapping speech have it (at 18.2 s and 27.9 s).

# %%
import json
import string
from itertools import count
from pathlib import Path

from pyannote_av.formats.annotations import read_rttm

reference = read_rttm("sample/sample.rttm")["sample"]
words = {"speaker90": map(str, count(1)), "speaker91": iter(string.ascii_lowercase * 4)}
segments = []
for turn, _, speaker in reference.itertracks(yield_label=True):
    number = max(1, int(turn.duration / 0.4))
    step = turn.duration / number
    spoken = [
        {
            "word": f" {next(words[speaker])}",
            "start": round(turn.start + i * step, 2),
            "end": round(turn.start + (i + 1) * step, 2),
        }
        for i in range(number)
    ]
    text = "".join(word["word"] for word in spoken)
    segments.append({"start": turn.start, "end": turn.end, "text": text, "words": spoken})
_ = Path("said.json").write_text(json.dumps({"language": "en", "segments": segments}))
# %%
from pyannote_av import assign_speakers
from pyannote_av.formats.transcripts import read_transcript

said = read_transcript("said.json")
transcript = assign_speakers(said, output)
for cue in transcript.utterances():
    print(f"{cue.start:6.2f} s  {cue.speaker}: {cue.text}")

# %% [markdown]
# ## Correct a turn
#
# Compare the table of turns with the reference, or look at the page below. Suppose that the turn
# at 6.9 s is Eve's. Change it in pandas (or in a spreadsheet, ELAN, Praat or Audacity: all of them
# are [formats](../formats.md) that are read again):

# %%
from pyannote_av.formats.registry import read, write

table = output.to_pandas()
wrong = (table.start < 6.9) & (table.end > 6.9)
table.loc[wrong, "speaker"] = "Eve"
table.to_csv("corrected.csv", index=False)
corrected = read("corrected.csv")
corrected.speaker_diarization.label_timeline("Eve").support()

# %% [markdown]
# ## Take it along
#
# Suffixes tell the format. The words follow the corrected turns:

# %%
named = assign_speakers(said, corrected.speaker_diarization)
for path in ("sample.srt", "sample.vtt", "sample.txt"):
    write(named, path)
print(Path("sample.vtt").read_text()[:300])

# %% [markdown]
# On the command line, the same is done by `apply --transcript` and `convert`:

# %%
write(output, "sample.json")

# %% [bash]
# pyannote-av convert sample.json sample.eaf --media sample/sample.mp4
# pyannote-av convert corrected.csv corrected.rttm
# head -3 corrected.rttm

# %% [markdown]
# ## Look at it
#
# `view` writes a page with the video, the faces and a timeline, and opens it in the browser. It
# works offline. You can rename, merge, correct and export there ([player](../player.md)).

# %%
page = output.view(video, path="sample.html", open_browser=False)
print(page.name, f"{page.stat().st_size / 1e3:.0f} kB")
