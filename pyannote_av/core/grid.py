"""The grids that everything is on: pictures, decisions, samples. No other module restates them."""

from __future__ import annotations

#: grid steps per second: pictures, face boxes, speaking scores (Hz)
FRAME_RATE = 25.0
#: of waveforms, in Hz
SAMPLE_RATE = 16000
#: samples per picture
SAMPLES_PER_FRAME = round(SAMPLE_RATE / FRAME_RATE)
#: decisions per picture: who speaks is decided at 100 Hz
STEPS = 4
#: decisions per second (Hz)
STEP_RATE = STEPS * FRAME_RATE
#: pictures per window of speaker features
FRAMES_PER_WINDOW = 4
