"""What models are trained to do, on the files of a pyannote.database protocol."""

from pyannote_av.tasks.active_speaker_detection import ActiveSpeakerDetection

__all__ = ["ActiveSpeakerDetection"]
