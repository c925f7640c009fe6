"""Target speaker diarization: find all speakers first, then predict when each one speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pyannote.audio import Pipeline as _Pipeline
from pyannote.core import Annotation
from pyannote.pipeline.parameter import Uniform

from pyannote_av.core.caching import cached
from pyannote_av.core.grid import SAMPLES_PER_FRAME, STEPS
from pyannote_av.core.memory import release_freed
from pyannote_av.core.output import AVDiarizeOutput
from pyannote_av.core.pipeline import DiarizationPipeline
from pyannote_av.core.posteriors import SpeakerPosteriors
from pyannote_av.fusion.activities import (
    confidences,
    confine,
    difference,
    exclusive,
    from_annotation,
    likeliest,
    to_annotation,
)
from pyannote_av.fusion.decoding import (
    Decision,
    add_faces,
    decode,
    face_evidence,
    log_odds,
    sound_evidence,
)
from pyannote_av.fusion.identities import FaceIdentity
from pyannote_av.fusion.speakers import Speakers
from pyannote_av.fusion.targets import TargetSpeaker, agreement, find_targets, join_faces
from pyannote_av.models.embedding.voiceprints import enrol, speaker_features
from pyannote_av.models.loading import ModelReference, load_model
from pyannote_av.pipelines.inference import AVInference
from pyannote_av.pipelines.late_fusion import Fused, LateFusion

#: share of the log-odds of the network about visible speakers that also counts for their number
_COUNT_SHARE = 0.5


class TargetSpeakerDiarization(DiarizationPipeline):
    """Audio-visual speaker diarization with a target speaker network on top of late fusion.

    The first pass is late fusion: it finds speakers and faces, and which faces belong to which
    speakers. The second pass is a network that takes these people as target speakers, each with a
    voiceprint, a face or both. It predicts jointly when each of them speaks. Its log-odds are added
    to the evidence of the first pass, and who speaks is decided again. How many people speak at a
    time is still decided mostly by sound and faces; see :mod:`pyannote_av.fusion.decoding`. Where
    no face is visible, the network has no say. If the video shows no usable face, or the second
    pass changes the first one too much, the output of the first pass is returned. If the picture
    gives little evidence for changes, the turns of the sound are kept.

    Parameters
    ----------
    segmentation : str, Path, mapping or Model
        Network that takes target speakers, such as HMSA-Net; see
        :func:`~pyannote_av.models.loading.load_model`.
    embedding : str, Path, mapping or Model, optional
        Speaker embedding model. It must be the one the network was trained with.
    audio, detector, embedder, scorer, max_offset : optional
        See :class:`~pyannote_av.pipelines.late_fusion.LateFusion`.
    duration, step : float, optional
        Duration of chunks, and step between them, in seconds.
    iterations : int, optional
        Number of passes of the network. With 2, the second one uses voiceprints that are computed
        from the turns of the first one.
    batch_size : int, optional
        Chunks per forward pass.
    oracle_vad : bool, optional
        Take speech regions from the ``lab`` of each file, as papers do. At least one speaker is
        active in every speech region, and none outside of them.
    token, cache_dir : optional
        Token and cache folder for models of the Hugging Face hub.

    Hyper-parameters
    ----------------
    network_weight : float
        Weight of the log-odds of the network. The weights of other evidence, and the minimum
        durations of turns, gaps and new speakers, are those of the first pass.
    join_similarity : float
        A face without a voice is joined to a speaker if the embedding of the audio during which
        this face speaks has at least this cosine similarity to the voiceprint of the speaker, and
        it speaks during a third of the turns of the speaker in which it is visible.
    max_change : float
        Maximum difference between the two passes, as a fraction of the speech of the first one.
    first_pass : dict
        See :class:`~pyannote_av.pipelines.late_fusion.LateFusion`.
    """

    FORMER_PARAMETERS: ClassVar = frozenset(
        {"prior", "counting", "onset", "offset", "onset_unheard"}
        | {"min_duration_on", "min_duration_off", "min_new"}
    )

    def __init__(
        self,
        segmentation: ModelReference,
        embedding: ModelReference = "campplus",
        audio: str | dict | _Pipeline = "audio",
        detector: Any = "auto",
        embedder: Any = "auto",
        scorer: Any = "auto",
        max_offset: float = 1.0,
        duration: float = 8.0,
        step: float = 2.0,
        iterations: int = 1,
        batch_size: int = 4,
        oracle_vad: bool = False,
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
    ):
        super().__init__()
        if iterations < 1:
            raise ValueError(f"iterations must be 1 or more, not {iterations}")
        self.first_pass = LateFusion(
            audio, detector, embedder, scorer, max_offset, token, cache_dir
        )
        self.embedding = load_model(embedding, token, cache_dir)
        self.segmentation = AVInference(
            load_model(segmentation, token, cache_dir), duration, step, batch_size
        )
        self.iterations, self.oracle_vad = iterations, oracle_vad

        self.network_weight = Uniform(0.0, 3.0)
        self.join_similarity = Uniform(0.0, 1.0)
        self.max_change = Uniform(0.0, 2.0)

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given."""
        return {
            "first_pass": self.first_pass.default_parameters(),
            "network_weight": 1.0,
            "join_similarity": 0.45,
            "max_change": 0.6,
        }

    def to(self, device) -> TargetSpeakerDiarization:
        """Move all models."""
        self.segmentation.to(device)
        self.embedding.to(device)
        return super().to(device)

    def classes(self):
        """Labels of the audio pipeline; added speakers get the next ones."""
        return self.first_pass.classes()

    def apply(
        self,
        file: Mapping,
        num_speakers: int | None = None,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        hook: Callable | None = None,
    ) -> AVDiarizeOutput | Annotation:
        """Diarize one file.

        Parameters
        ----------
        file : str, Path or mapping
            As in :meth:`LateFusion.apply`. `oracle_vad` also needs ``lab``, a Timeline of speech.
        num_speakers, min_speakers, max_speakers : int, optional
            Number of speakers, or bounds on it, if known.
        hook : callable, optional
            ``hook(step, artifact, file=..., total=..., completed=...)``.

        Returns
        -------
        output : AVDiarizeOutput
            An ``Annotation`` while ``self.training``.
        """
        hook = self.setup_hook(file, hook)
        if self.oracle_vad and file.get("lab") is None:
            raise ValueError(f"file {file['uri']!r} has no `lab`, which oracle VAD needs")
        bounds = num_speakers, min_speakers, max_speakers
        model = self.segmentation.model
        first = self.first_pass.fuse(file, *bounds, hook, visual_model=model)
        # the first pass leaves gaps, and the network needs the most memory
        release_freed()
        report = first.output.report
        output, gain = first.output, first.gain
        if first.identities.identities or self.oracle_vad:
            with report.stage("voiceprints"):
                embeddings = self._embed_windows(file)
            with report.stage("target speakers"):
                most = num_speakers or max_speakers or np.inf
                output, gain = self._second_pass(file, first, embeddings, most, hook)
            report.components["segmentation"] = type(model).__name__
        output = first.conclude(output, gain)
        hook("target speakers", output.speaker_diarization)
        return output.speaker_diarization if self.training else output

    # ---------------------------------------------------------------------------------- steps

    def _embed_windows(self, file: Mapping) -> np.ndarray:
        """Speaker embeddings of short windows: (windows, dimension)"""
        return cached(
            file,
            "speaker embeddings",
            self.embedding,
            lambda: speaker_features(file["waveform"], self.embedding),
        )

    def _second_pass(
        self, file: Mapping, fused: Fused, embeddings: np.ndarray, most: float, hook: Callable
    ) -> tuple[AVDiarizeOutput, float]:
        """Run the network on all targets, repeatedly with updated voiceprints if requested.

        Returns the output and its gain; with oracle VAD, the gain is infinite.
        """
        first, report = fused.output, fused.output.report
        labels = list(first.speaker_diarization.labels())
        if not labels:
            return first, fused.gain
        num_steps = STEPS * (file["waveform"].shape[1] // SAMPLES_PER_FRAME)
        before = from_annotation(first.speaker_diarization, labels, num_steps)
        active = before
        for _ in range(self.iterations):
            voiceprints = enrol(embeddings, active[:, : len(labels)])
            targets = find_targets(
                labels,
                voiceprints,
                first.face_tracks,
                fused.identities,
                fused.features,
                fused.offset,
            )
            posteriors = self._predict(file, targets, embeddings, fused.speakers, hook)
            joined = self._join_faces(targets, before, posteriors, embeddings)
            if len(joined) < len(targets):
                report.numbers["faces that joined a voice"] = len(targets) - len(joined)
                targets = joined
                posteriors = self._predict(file, targets, embeddings, fused.speakers, hook)
            decision = self._decide(posteriors, targets, fused, len(labels), num_steps, most)
            active, probabilities, gain = decision.active, decision.probability, decision.gain
            targets = [targets[k] for k in decision.kept]
            if self.oracle_vad:
                active, gain = confine(active, probabilities, file["lab"]), np.inf

        change = difference(before, active)
        report.numbers["change by the second pass"] = change
        if change > self.max_change and not self.oracle_vad:
            report.reasons.append(
                f"the second pass differs from the first by {100 * change:.0f} % of its speech: "
                "the first result is kept"
            )
            return first, fused.gain
        return self._output(file, first, targets, active, probabilities, embeddings), gain

    def _predict(
        self,
        file: Mapping,
        targets: Sequence[TargetSpeaker],
        embeddings: np.ndarray,
        speakers: Speakers,
        hook: Callable,
    ) -> np.ndarray:
        """Posteriors of all targets: (steps, targets)"""
        inputs = [(target.voiceprint, target.faces) for target in targets]
        first_pass: tuple[np.ndarray, np.ndarray] | tuple[()] = ()
        if getattr(self.segmentation.model.hparams, "first_pass", False):
            labels = [target.label for target in targets]
            first_pass = _first_pass(speakers.posteriors, labels, file)
        progress = partial(hook, "segmentation", None)
        return cached(
            file,
            "posteriors",
            (self.segmentation, self.embedding, inputs, *first_pass),
            lambda: self.segmentation(file["waveform"], targets, embeddings, progress, *first_pass),
        )

    def _join_faces(
        self,
        targets: Sequence[TargetSpeaker],
        turns: np.ndarray,
        posteriors: np.ndarray,
        embeddings: np.ndarray,
    ) -> list[TargetSpeaker]:
        """Targets, of which faces without a voice are joined to the voices that sound like them"""
        alone = likeliest(posteriors, (posteriors >= 0.5).any(axis=1))
        agrees = agreement(targets, turns, posteriors)
        voiceprints = enrol(embeddings, alone)
        return join_faces(targets, turns.shape[1], voiceprints, self.join_similarity, agrees)

    def _decide(
        self,
        posteriors: np.ndarray,
        targets: Sequence[TargetSpeaker],
        fused: Fused,
        num_voices: int,
        num_steps: int,
        most: float,
    ) -> Decision:
        """Decide who speaks when, from the sound, the speaking scores and the network"""
        first, speakers = self.first_pass, fused.speakers
        labels = [target.label for target in targets]
        evidence, counts, sound = sound_evidence(
            speakers.posteriors, speakers.turns, labels, num_steps, first.weights
        )
        scores = face_evidence(_faces(targets, fused), num_steps, first.weights)
        evidence, preference = add_faces(evidence, counts, scores)
        # the network knows nothing about targets that have neither voiceprint nor face, and nothing
        # that the sound does not know better where it sees nobody
        known = [k for k, t in enumerate(targets) if t.voiceprint is not None or t.faces]
        sees = np.any([t.visible(0, num_steps // STEPS) for t in targets], axis=0).repeat(STEPS)
        network = np.zeros_like(evidence)
        network[:, known] = self.network_weight * log_odds(posteriors[:, known])
        network[~sees] = 0.0
        # of how many people speak, the network knows less
        shared = np.where(scores != 0, _COUNT_SHARE * network, 0.0)
        return decode(
            evidence + shared,
            counts,
            first.count_weight,
            first.durations,
            num_voices=num_voices,
            min_new=first.min_new,
            most=most,
            preference=preference + network - shared,
            sound=sound,
            seen=scores != 0,
        )

    def _output(
        self,
        file: Mapping,
        first: AVDiarizeOutput,
        targets: Sequence[TargetSpeaker],
        active: np.ndarray,
        probabilities: np.ndarray,
        embeddings: np.ndarray,
    ) -> AVDiarizeOutput:
        """Build the output, with confidence and modality of every turn"""
        names = [target.label for target in targets]
        diarization = to_annotation(active, names, file["uri"])
        rows = dict(zip(names, enrol(embeddings, active), strict=True))
        voiceprints = np.array([rows[label] for label in diarization.labels()], float)
        voiceprints = voiceprints.reshape(-1, embeddings.shape[1])
        voiceprints[~voiceprints.any(axis=1)] = np.nan
        speaking = set(diarization.labels())
        owner = {
            track: target.label
            for target in targets
            if target.label in speaking
            for track in target.tracks
        }
        modality = {t.label: "audio+video" if t.faces else "audio" for t in targets}
        found = confidences(diarization, names, probabilities)
        return AVDiarizeOutput(
            speaker_diarization=diarization,
            exclusive_speaker_diarization=to_annotation(
                exclusive(active, probabilities), names, file["uri"]
            ),
            speaker_embeddings=voiceprints,
            face_tracks=first.face_tracks.with_speakers(owner),
            report=first.report,
            audio_only=first.audio_only,
            provenance={
                (segment, track): {
                    "confidence": found[segment, track],
                    "modality": modality[label],
                }
                for segment, track, label in diarization.itertracks(yield_label=True)
            },
        )


def _first_pass(
    posteriors: SpeakerPosteriors, labels: Sequence[str], file: Mapping
) -> tuple[np.ndarray, np.ndarray]:
    """Posteriors of the first pass of each label, -1 for those it does not know, and of counts"""
    num_steps = STEPS * (file["waveform"].shape[1] // SAMPLES_PER_FRAME)
    speakers, counts = posteriors.at_steps(num_steps, labels)
    speakers[:, [label not in posteriors.labels for label in labels]] = -1
    return speakers, counts


def _faces(targets: Sequence[TargetSpeaker], fused: Fused) -> list[list[FaceIdentity]]:
    """Faces of each target"""
    return [
        [face for face in fused.identities.identities if not set(face.tracks).isdisjoint(own)]
        for own in (target.tracks for target in targets)
    ]
