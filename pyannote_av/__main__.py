"""``python -m pyannote_av`` is ``pyannote-av``, for launchers such as torchrun."""

from pyannote_av.cli import main

main()
