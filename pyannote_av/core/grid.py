"""Time grids of pictures, decisions and samples. Other modules import these constants."""

from __future__ import annotations

#: rate of pictures, face boxes and speaking scores (Hz)
FRAME_RATE = 25.0
#: sample rate of waveforms (Hz)
SAMPLE_RATE = 16000
#: samples per picture
SAMPLES_PER_FRAME = round(SAMPLE_RATE / FRAME_RATE)
#: decisions per picture; speaker activity is decided at 100 Hz
STEPS = 4
#: rate of decisions (Hz)
STEP_RATE = STEPS * FRAME_RATE
#: number of pictures per window of speaker features
FRAMES_PER_WINDOW = 4
