"""What a loaded file may build, execute or fetch: everything that is loaded asks here.

Configurations, checkpoints and folders of weights name classes, other files and repositories. The
author of the file chooses the names, so a name alone is never acted on:

1. **Classes.** A class is built only if it is in :data:`CLASSES`. A file may name it by the module
   that defines it (``module.Class``), or by the package right above that module. Names are compared
   as text before anything is imported, because importing a module executes it. The object found is
   then judged: it must be a class of the expected kind, defined in that module. Functions, base
   classes and re-exports from other modules are refused.
2. **What those classes load.** Pipelines of this package load models, scorers and pipelines by
   functions that ask this module. Pipelines of pyannote.audio would unpickle what they are given;
   :mod:`pyannote_av.core.pipeline` loads their models for them, default arguments included.
3. **Pickles.** :mod:`pyannote_av.core.checkpoint` reads tensors and plain containers, nothing else.
4. **Network.** What a caller names may be fetched from the Hugging Face hub. What a local file
   names may not, unless the caller passes ``allow_network=True``.

``trust=True``, in Python or as ``--trust``, is the one way out. It holds for everything that the
call loads, at any depth, and each use of it is logged as a warning.

The caller's decision travels in a context variable instead of an argument, because it has to pass
through constructors of pyannote.audio and through configurations.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib import import_module

from pyannote_av.core.text import printable

logger = logging.getLogger(__name__)

_AUDIO, _OURS = "pyannote.audio", "pyannote_av"

#: classes that files may name, by kind and by the module that defines them. Networks of this
#: package are those of models/registry.py, which this module cannot import (a test compares both).
CLASSES: dict[str, dict[str, tuple[str, ...]]] = {
    "pipeline": {
        f"{_AUDIO}.pipelines.multilabel": ("MultiLabelSegmentation",),
        f"{_AUDIO}.pipelines.speaker_diarization": ("SpeakerDiarization",),
        f"{_AUDIO}.pipelines.speaker_verification": ("SpeakerEmbedding",),
        f"{_AUDIO}.pipelines.speech_separation": ("SpeechSeparation",),
        f"{_AUDIO}.pipelines.voice_activity_detection": (
            "OracleVoiceActivityDetection",
            "VoiceActivityDetection",
        ),
        f"{_OURS}.pipelines.active_speaker_detection": ("ActiveSpeakerDetection",),
        f"{_OURS}.pipelines.audio_diarization": ("AudioDiarization",),
        f"{_OURS}.clustering.counting_diarization": ("CountingDiarization",),
        f"{_OURS}.clustering.enrolment_pipeline": ("EnrolmentDiarization",),
        f"{_OURS}.pipelines.face_tracking": ("FaceTracking",),
        f"{_OURS}.clustering.joint_diarization": ("JointDiarization",),
        f"{_OURS}.pipelines.late_fusion": ("LateFusion",),
        f"{_OURS}.clustering.relation_diarization": ("RelationDiarization",),
        f"{_OURS}.clustering.similarity_diarization": ("SimilarityDiarization",),
        f"{_OURS}.pipelines.target_speaker_diarization": ("TargetSpeakerDiarization",),
        f"{_OURS}.clustering.vbx_diarization": ("VBxDiarization",),
    },
    "model": {
        f"{_AUDIO}.models.embedding.debug": ("SimpleEmbeddingModel",),
        f"{_AUDIO}.models.embedding.wespeaker": (
            "WeSpeakerResNet34",
            "WeSpeakerResNet152",
            "WeSpeakerResNet221",
            "WeSpeakerResNet293",
        ),
        f"{_AUDIO}.models.embedding.xvector": ("XVectorMFCC", "XVectorSincNet"),
        f"{_AUDIO}.models.segmentation.PyanNet": ("PyanNet",),
        f"{_AUDIO}.models.segmentation.SSeRiouSS": ("SSeRiouSS",),
        f"{_AUDIO}.models.segmentation.debug": ("SimpleSegmentationModel",),
        f"{_AUDIO}.models.separation.ToTaToNet": ("ToTaToNet",),
        f"{_OURS}.models.active_speaker.compact": ("CompactASD",),
        f"{_OURS}.models.active_speaker.lightasd": ("LightASD",),
        f"{_OURS}.models.active_speaker.loconet": ("LoCoNet",),
        f"{_OURS}.models.active_speaker.lrasd": ("LRASD",),
        f"{_OURS}.models.active_speaker.talknet": ("TalkNet",),
        f"{_OURS}.models.embedding.campplus": ("CAMPPlus",),
        f"{_OURS}.clustering.cysmsd": ("CYSMSD",),
        f"{_OURS}.clustering.tree_counter": ("TreeCounter",),
        f"{_OURS}.clustering.avrnet": ("AVRNet",),
        f"{_OURS}.clustering.embedded": (
            "CorrectedSimilarity",
            "FusedEmbeddings",
            "RelationOfEmbeddings",
        ),
        f"{_OURS}.clustering.single_stream": ("SingleStream",),
        f"{_OURS}.models.hmsanet.model": ("HMSANet",),
    },
    "preprocessor": {
        f"{_AUDIO}.utils.preprocessors": (
            "DeriveMetaLabels",
            "LowerTemporalResolution",
            "SampleRate",
            "Waveform",
        ),
    },
    "augmentation": {
        "torch_audiomentations.augmentations.background_noise": ("AddBackgroundNoise",),
        "torch_audiomentations.augmentations.band_pass_filter": ("BandPassFilter",),
        "torch_audiomentations.augmentations.band_stop_filter": ("BandStopFilter",),
        "torch_audiomentations.augmentations.colored_noise": ("AddColoredNoise",),
        "torch_audiomentations.augmentations.gain": ("Gain",),
        "torch_audiomentations.augmentations.high_pass_filter": ("HighPassFilter",),
        "torch_audiomentations.augmentations.impulse_response": ("ApplyImpulseResponse",),
        "torch_audiomentations.augmentations.low_pass_filter": ("LowPassFilter",),
        "torch_audiomentations.augmentations.peak_normalization": ("PeakNormalization",),
        "torch_audiomentations.augmentations.pitch_shift": ("PitchShift",),
        "torch_audiomentations.augmentations.polarity_inversion": ("PolarityInversion",),
        "torch_audiomentations.augmentations.shift": ("Shift",),
        "torch_audiomentations.core.composition": ("Compose", "OneOf", "SomeOf"),
    },
}

#: where classes were defined when files were written that still name them there
FORMER = {
    "pyannote_av.clustering.counting_diarization": "pyannote_av.pipelines.counting_diarization",
    "pyannote_av.clustering.enrolment_pipeline": "pyannote_av.pipelines.enrolment",
    "pyannote_av.clustering.joint_diarization": "pyannote_av.pipelines.joint_diarization",
    "pyannote_av.clustering.relation_diarization": "pyannote_av.pipelines.relation_diarization",
    "pyannote_av.clustering.similarity_diarization": "pyannote_av.pipelines.similarity_diarization",
    "pyannote_av.clustering.vbx_diarization": "pyannote_av.pipelines.vbx_diarization",
    "pyannote_av.clustering.cysmsd": "pyannote_av.models.embedding.cysmsd",
    "pyannote_av.clustering.avrnet": "pyannote_av.models.relation.avrnet",
    "pyannote_av.clustering.embedded": "pyannote_av.models.relation.embedded",
    "pyannote_av.models.hmsanet.model": "pyannote_av.models.segmentation.hmsanet",
}

# what each kind has to be derived from
_BASES = {
    "pipeline": (f"{_AUDIO}.core.pipeline", "Pipeline"),
    "model": (f"{_AUDIO}.core.model", "Model"),
    "preprocessor": ("builtins", "object"),
    "augmentation": ("torch.nn", "Module"),
}


class UntrustedError(ValueError):
    """Loading would execute, fetch or write something that the caller did not ask for."""

    def __init__(self, message: str):
        super().__init__(printable(message, one_line=True))


@dataclass(frozen=True)
class Policy:
    """What the caller of the outermost loading function allowed.

    Attributes
    ----------
    trust : bool
        Build any class and unpickle any file.
    network : bool or None
        Whether what is named may be fetched. None at the outermost call: the caller names it.
    where : str
        The file that is being read.
    """

    trust: bool = False
    network: bool | None = None
    where: str = "the caller"


_NOTHING_SAID = Policy()
_policy: ContextVar[Policy] = ContextVar("policy", default=_NOTHING_SAID)


def policy() -> Policy:
    """What is allowed here and now."""
    return _policy.get()


@contextmanager
def loading(
    where: object, trust: bool = False, allow_network: bool = False, from_hub: bool = False
) -> Iterator[Policy]:
    """Everything loaded within is named by the file `where`, not by the caller.

    Parameters
    ----------
    where : path or str
        The file, for messages.
    trust, allow_network : bool, optional
        What the caller of this step allows, in addition to what callers above did.
    from_hub : bool, optional
        The caller named a repository of the hub himself, which may name others.
    """
    above = policy()
    trust = trust or above.trust
    by_caller = from_hub and above.network is not False
    network = bool(trust or allow_network or by_caller or above.network)
    token = _policy.set(replace(above, trust=trust, network=network, where=str(where)))
    try:
        yield policy()
    finally:
        _policy.reset(token)


@contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """Whatever is loaded within is trusted if `trust`; it is still the caller who names it."""
    above = policy()
    token = _policy.set(replace(above, trust=trust or above.trust))
    try:
        yield
    finally:
        _policy.reset(token)


def accepted(kind: str) -> dict[str, tuple[str, str]]:
    """Names that files may use for the classes of a kind, each with its (module, class)."""
    found = {}
    for module, classes in CLASSES[kind].items():
        package, former = module.rpartition(".")[0], FORMER.get(module)
        for name in classes:
            for above in filter(None, (module, package, former)):
                found[f"{above}.{name}"] = (module, name)
            if kind == "augmentation":
                # torch_audiomentations' own configurations use bare names
                found[name] = (module, name)
    return found


def named_class(name: str, kind: str, where: object = None) -> type:
    """The class that a file names, if it may be built.

    Parameters
    ----------
    name : str
        Dotted name, from a file.
    kind : {"pipeline", "model", "preprocessor", "augmentation"}
    where : path or str, optional
        The file, for messages. Defaults to the file that is being read.

    Returns
    -------
    cls : type

    Raises
    ------
    UntrustedError
        When it is not in :data:`CLASSES` and the caller did not say ``trust=True``.
    ValueError
        When there is no such class.
    """
    where = policy().where if where is None else where
    if not isinstance(name, str):
        raise ValueError(printable(f"{where}: a {kind} is named by text, not {name!r}"))
    known = accepted(kind)
    if name in known:
        module, attribute = known[name]
    elif policy().trust:
        module, _, attribute = name.rpartition(".")
        used_trust(f"{where}: class {name!r} is imported and built")
    else:
        raise UntrustedError(
            f"{where} asks for {name!r}, which is not one of the {kind}s that are built without "
            f"asking ({_summary(kind)}). Pass trust=True (--trust on the command line) if you know "
            "and trust its origin."
        )
    try:
        cls = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(printable(f"{where}: there is no {kind} {name!r} ({error})")) from error
    base = getattr(import_module(_BASES[kind][0]), _BASES[kind][1])
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise UntrustedError(f"{where}: {name!r} is not a {kind}")
    if name in known and (cls.__module__, cls.__qualname__) != (module, attribute):
        raise UntrustedError(f"{where}: {name!r} is defined elsewhere, in {cls.__module__}")
    return cls


def may_fetch(what: str) -> None:
    """Raise :class:`UntrustedError` if a file asks for something from the network.

    Parameters
    ----------
    what : str
        What would be fetched, for the message.
    """
    if policy().network is False:
        raise UntrustedError(
            f"{policy().where} asks for {what}, which is not on this machine and would be fetched "
            "from the network. Pass allow_network=True (--trust on the command line) to fetch it, "
            "or name a local file in its place."
        )


def used_trust(what: str) -> None:
    """Say what ``trust=True`` let happen."""
    logger.warning("trust=True: %s", printable(what, one_line=True))


def _summary(kind: str) -> str:
    names = sorted(name for classes in CLASSES[kind].values() for name in classes)
    return ", ".join(names)
