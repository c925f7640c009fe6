"""Sound that is not clean: bad samples, channels that cancel each other, levels

Clean sound is not changed. Every repair is reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.core.runs import true_runs

if TYPE_CHECKING:
    from torch import Tensor

BAD = 1e6
"""Samples with a larger absolute value are treated like NaN; full scale is 1"""

SHORT_REPAIR = 0.01
"""Runs of bad samples up to this long are interpolated, longer ones become silence (s)"""

BLOCK = 1.0
"""Channels are compared over this long (s)"""

CANCELLED = 0.2
"""Channels cancel each other if the power of their average is less than this share of the power
that the average of unrelated channels would have"""

DEAD = 1e-4
"""A channel is dead if its power is less than this share of that of the loudest (40 dB)"""

UNEVEN = 1e-2
"""A channel is reported as faint if its power is less than this share of that of the loudest
(20 dB)"""

OFFSET = 0.02
"""A constant offset (mean of all samples) of more than this is removed; full scale is 1"""

SILENT = 1e-4
"""Samples smaller than this are silence (-80 dB)"""

QUIET = 1e-2
"""Sound that never gets louder than this is amplified (-40 dB)"""

LOUD = 8.0
"""If a few samples are above this, they are spikes; if many are, the sound has another scale"""

CLICK = 0.1
"""If less sound than this is not silent, the file has no speech (s)"""

CLIPPED = 0.005
"""Sound is clipped if more than this share of its samples is at the highest level"""


def bad_samples(samples: np.ndarray) -> np.ndarray:
    """Mask of samples that are NaN, infinite or absurdly large"""
    with np.errstate(invalid="ignore"):
        return ~(np.abs(samples) < BAD)


def repair(samples: np.ndarray, rate: int, bad: np.ndarray) -> np.ndarray:
    """Replace bad samples: short runs by interpolation, longer ones by silence

    Parameters
    ----------
    samples : (n,)
    rate : int
        Sample rate (Hz).
    bad : (n,) bool

    Returns
    -------
    repaired : (n,)

    >>> repair(np.array([1, np.nan, 3.0]), 16000, np.array([False, True, False])).tolist()
    [1.0, 2.0, 3.0]
    """
    good = np.flatnonzero(~bad)
    if not len(good):
        return np.zeros_like(samples)
    repaired = samples.copy()
    where = np.flatnonzero(bad)
    repaired[where] = np.interp(where, good, samples[good])
    for first, end in true_runs(bad):
        if end - first > SHORT_REPAIR * rate:
            repaired[first:end] = 0
    return repaired


@dataclass
class Mixer:
    """Average of channels, block by block

    Where the channels of a block cancel each other, the loudest channel is taken instead.

    Parameters
    ----------
    sample_rate : int

    Attributes
    ----------
    cancelled : float
        Time in which the loudest channel was used instead of the average (s).
    cancelled_from : float or None
        Where this first happened (s); None if it never did.
    """

    sample_rate: int
    cancelled: float = 0.0
    cancelled_from: float | None = None
    _powers: dict[int, np.ndarray] = field(default_factory=dict)
    _counts: set[int] = field(default_factory=set)
    _chosen: int | None = None

    @property
    def block(self) -> int:
        """Samples in a block"""
        return round(BLOCK * self.sample_rate)

    def mix(self, samples: np.ndarray, time: float) -> np.ndarray:
        """Mix one block down

        Parameters
        ----------
        samples : (n, channels) float32
        time : float
            Time of the first sample (s).

        Returns
        -------
        mixed : (n,) float32
        """
        mixed = samples.mean(axis=1, dtype=np.float32)
        count = samples.shape[1]
        if not len(samples):
            return mixed
        self._counts.add(count)
        if count == 1:
            return mixed
        covariance = _covariance(samples)
        powers = covariance.diagonal()
        self._powers[count] = self._powers.get(count, 0) + powers * len(samples)
        loudest = int(np.argmax(powers))
        expected = powers.sum() / count**2
        if powers[loudest] < SILENT**2 or covariance.mean() > CANCELLED * expected:
            return mixed
        chosen = self._chosen
        if chosen is None or chosen >= count or powers[chosen] < powers[loudest] / 2:
            chosen = self._chosen = loudest
        self.cancelled += len(samples) / self.sample_rate
        if self.cancelled_from is None:
            self.cancelled_from = time
        return np.ascontiguousarray(samples[:, chosen])

    @property
    def is_average(self) -> bool:
        """Whether all sound is the average of the same number of channels"""
        return not self.cancelled and len(self._counts) == 1

    def channels(self) -> tuple[int, int, int] | None:
        """Number of channels, of those that are dead, and of those that are faint"""
        if not self._powers:
            return None
        count, powers = max(self._powers.items(), key=lambda item: item[1].sum())
        loudest = powers.max()
        if not loudest:
            return None
        dead = powers < DEAD * loudest
        return count, int(dead.sum()), int((powers < UNEVEN * loudest).sum() - dead.sum())


def level(
    waveform: np.ndarray,
    mixer: Mixer,
    spans: list[tuple[int, int]] | None = None,
    scaled: bool = True,
) -> tuple[np.ndarray, list[str]]:
    """Correct the level of sound

    Dead channels are left out of the average. A constant offset is removed. Sound that is far too
    loud or too quiet is scaled; see :func:`scale`.

    Parameters
    ----------
    waveform : (n,) float32
        Changed in place.
    mixer : Mixer
        The mixer that made the waveform.
    spans : list of (first, end), optional
        Ranges of samples that were recorded. The others are filled gaps. Defaults to all samples.
    scaled : bool, optional
        Scale the sound. False for one of several tracks, whose mix is scaled.

    Returns
    -------
    waveform : (n,) float32
    sentences : list of str
        Problems found. Each sentence continues "audio stream of FILE ".
    """
    sentences: list[str] = []
    spans = [(0, len(waveform))] if spans is None else spans
    _channels(waveform, mixer, sentences)
    recorded = sum(end - first for first, end in spans)
    if not recorded:
        return waveform, sentences
    offset = sum(waveform[a:b].sum(dtype=np.float64) for a, b in spans) / recorded
    if abs(offset) > OFFSET * max(1.0, peak_of(waveform)):
        for first, end in spans:
            waveform[first:end] -= np.float32(offset)
        sentences.append(f"has an offset of {offset:+.3f} (full scale is 1); it is removed")
    if scaled:
        sentences += scale(waveform, mixer.sample_rate)
    return waveform, sentences


def clean(waveform: Tensor, sample_rate: int) -> tuple[Tensor, list[str]]:
    """Downmix and repair sound in memory

    Parameters
    ----------
    waveform : (channels, n) Tensor
        Floats; never changed. :func:`pyannote_av.core.files.validate_file` scales whole numbers.
    sample_rate : int

    Returns
    -------
    waveform : (1, n) float32 Tensor
    sentences : list of str
        Problems found; see :func:`level`.
    """
    import torch

    sentences: list[str] = []
    samples = waveform.detach().to("cpu", torch.float32, copy=True)
    bad = ~(samples.abs() < BAD)
    if bad.any():
        where = torch.nonzero(bad.any(dim=0))[:, 0]
        first, last = (float(where[k]) / sample_rate for k in (0, -1))
        for channel in torch.nonzero(bad.any(dim=1))[:, 0].tolist():
            fixed = repair(samples[channel].numpy(), sample_rate, bad[channel].numpy())
            samples[channel] = torch.from_numpy(fixed)
        sentences.append(no_numbers(int(bad.sum()), first, last))
    mixed, mixer = samples.mean(dim=0, keepdim=True), Mixer(sample_rate)
    for first in range(0, samples.shape[1], mixer.block):
        before = mixer.cancelled
        part = slice(first, first + mixer.block)
        chosen = mixer.mix(samples[:, part].numpy().T, first / sample_rate)
        if mixer.cancelled > before:
            mixed[0, part] = torch.from_numpy(chosen)
    return mixed, sentences + level(mixed[0].numpy(), mixer)[1]


def no_numbers(count: int, first: float, last: float) -> str:
    """Sentence about `count` repaired samples between two times (s)"""
    return (
        f"is damaged ({count} samples are NaN, infinite or absurdly large, "
        f"from {first:.2f} to {last:.2f} s); short runs are interpolated, longer ones are silence"
    )


def _covariance(samples: np.ndarray) -> np.ndarray:
    """Covariance (channels, channels) of samples (n, channels); its mean is that of the average"""
    count = len(samples)
    means = np.ones(count, np.float32) @ samples / count
    return (samples.T @ samples) / count - np.outer(means, means)


def peak_of(waveform: np.ndarray) -> float:
    """Largest absolute value"""
    return float(max(waveform.max(), -waveform.min())) if len(waveform) else 0.0


def _channels(waveform: np.ndarray, mixer: Mixer, sentences: list[str]) -> None:
    found = mixer.channels()
    if mixer.cancelled:
        sentences.append(
            f"has channels that cancel each other for {mixer.cancelled:.2f} s from about "
            f"{mixer.cancelled_from:.2f} s on (one is inverted); the loudest channel is used there"
        )
    if found is None:
        return
    count, dead, faint = found
    if dead:
        if mixer.is_average:
            waveform *= np.float32(count / (count - dead))
        sentences.append(
            f"has {count} channels, of which {dead} {'is' if dead == 1 else 'are'} silent; the "
            "others are used"
        )
    if faint:
        sentences.append(
            f"has {count} channels, of which {faint} {'is' if faint == 1 else 'are'} more than 20 "
            "dB fainter than the loudest and barely audible in the average; if a speaker is "
            "only on that channel, process it separately"
        )


def scale(waveform: np.ndarray, sample_rate: int) -> list[str]:
    """Scale sound that is far too loud or too quiet, and report silence and clipping

    Parameters
    ----------
    waveform : (n,) float32
        Changed in place.
    sample_rate : int

    Returns
    -------
    sentences : list of str
        Problems found; see :func:`level`.
    """
    sentences = []
    peak = peak_of(waveform)
    if peak > LOUD:
        spikes = _spikes(waveform)
        if spikes is None:
            waveform *= np.float32(1 / peak)
            sentences.append(
                f"has samples up to {peak:.4g}, where full scale is 1; it is scaled down"
            )
        else:
            margin = sample_rate // 500  # resampling spreads them
            for index in spikes:
                waveform[max(index - margin, 0) : index + margin] = 0
            sentences.append(
                f"has {len(spikes)} samples of up to {peak:.4g}, where full scale is 1; they are "
                "silence"
            )
        peak = peak_of(waveform)
    if peak < SILENT:
        return [*sentences, "is silent from beginning to end: no speakers can be found"]
    if is_click(waveform, sample_rate):
        why = f"is silent except for less than {CLICK} s, a click: no speakers can be found"
        return [*sentences, why]
    if peak < QUIET:
        waveform *= np.float32(0.5 / peak)
        why = f"is very quiet ({20 * np.log10(peak):.0f} dB at most); it is amplified"
        return [*sentences, why]
    # in parts, so that no second waveform is made
    top = sound = 0
    for first in range(0, len(waveform), 2**20):
        part = np.abs(waveform[first : first + 2**20])
        top += np.count_nonzero(part > 0.95 * peak)
        sound += np.count_nonzero(part > 0.01 * peak)
    if peak > 0.9 and top > CLIPPED * sound:
        sentences.append(
            f"is clipped ({top / sound:.1%} of the sound is at the highest level): speakers may be "
            "confused; record it at a lower level"
        )
    return sentences


def _spikes(waveform: np.ndarray) -> np.ndarray | None:
    """Indices of samples above `LOUD`; None if there are too many of them to be spikes"""
    found, count = [], 0
    for first in range(0, len(waveform), 2**20):
        found.append(first + np.flatnonzero(np.abs(waveform[first : first + 2**20]) > LOUD))
        count += len(found[-1])
        if count >= 1e-4 * len(waveform):
            return None
    return np.concatenate(found)


def is_click(waveform: np.ndarray, sample_rate: int) -> bool:
    """Whether a waveform (n,) is silence, or mostly silence with less than `CLICK` seconds of sound

    Sound is counted in steps of 10 ms, up to the first step that is too many.
    """
    step = max(1, sample_rate // 100)
    size = max(1, 2**16 // step) * step
    loud = 0
    for first in range(0, len(waveform), size):
        part = waveform[first : first + size]
        usable = len(part) // step * step
        blocks = np.abs(part[:usable]).reshape(-1, step).max(axis=1, initial=0.0)
        loud += int(np.count_nonzero(blocks >= SILENT))
        loud += bool(np.abs(part[usable:]).max(initial=0.0) >= SILENT)
        if loud * step > CLICK * sample_rate:
            return False
    return 2 * loud * step <= len(waveform)
