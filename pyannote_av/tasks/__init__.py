"""Training tasks for the files of a pyannote.database protocol."""

from pyannote_av.tasks.active_speaker_detection import ActiveSpeakerDetection
from pyannote_av.tasks.target_speaker_segmentation import TargetSpeakerSegmentation

__all__ = ["ActiveSpeakerDetection", "TargetSpeakerSegmentation"]
