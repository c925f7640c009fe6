"""Voices are clustered, faces are clustered, and voices follow the faces: as 3D-Speaker does it.

A baseline that other systems are compared with. The published method, thresholds included:
https://github.com/modelscope/3D-Speaker (Apache-2.0), ``speakerlab/process/cluster.py`` and
``egs/3dspeaker/speaker-diarization/conf/diar_video.yaml``. Where we depart from it on purpose is
said in notes; everywhere, embeddings are brought to unit length, where the original averages them
as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pyannote_av.clustering.linkage import NOBODY, pair_clusters, threshold_clusters
from pyannote_av.fusion.persons import simultaneous

_SHORT, _SHORT_DISTANCE = 40, 0.6  # fewer windows: a tree, cut at this mean cosine distance
_SPEAKERS = 15  # most, where nothing else is said
_NEIGHBOURS = 6  # similarities kept in a row whatever is pruned, that of a window to itself too
_MINOR = 1  # clusters of so few windows are no speakers
_SAMPLE = 1.0  # seconds for which a face talks in windows that are samples of its voice
_TALK = 0.5  # seconds for which a face talks during clusters that it is a speaker of
_EQUAL = 1e-9  # similarities, and eigenvalues, that differ by less are equal


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings of length one, (n, dimension); those that are 0, or not finite, become 0."""
    from sklearn.preprocessing import normalize

    embeddings = np.asarray(embeddings, dtype=np.float64)
    known = np.isfinite(embeddings).all(axis=1, keepdims=True)
    return normalize(np.where(known, embeddings, 0.0)) if embeddings.size else embeddings


def spectral_clusters(
    voices: np.ndarray,
    num_speakers: int | None = None,
    min_speakers: int | None = None,
    max_speakers: int | None = None,
    pruning: float = 0.032,
    merge: float = 0.8,
) -> np.ndarray:
    """Cluster windows by the spectrum of the graph of which voices are alike.

    Windows are tied to the few they are most alike. There are as many speakers as eigenvalues of
    the Laplacian of this graph before the largest gap; k-means finds them among the eigenvectors.
    Then windows that are alone in their cluster join the nearest larger one, and clusters are
    merged, the most alike first, as long as their mean voices are alike.

    Parameters
    ----------
    voices : (n, dimension) array
        Embeddings of any length. Those that are 0, or not finite, are nobody's.
    num_speakers, min_speakers, max_speakers : int, optional
        What is known of the number of speakers; between 1 and 15 where nothing is. There are never
        more than windows.
    pruning : float
        Share of the similarities of a window that are kept, in (0, 1]; never fewer than 6.
    merge : float
        Cosine similarity of mean voices from which two clusters are one speaker, in (0, 1].

    Returns
    -------
    clusters : (n,) int array
        Numbered from 0 in order of appearance; ``NOBODY`` where nothing is known.

    Raises
    ------
    ValueError
        When bounds contradict each other, or `pruning` or `merge` is not in (0, 1].

    Notes
    -----
    As in the original: fewer than 40 windows are clustered by average linkage instead, cut at a
    cosine similarity of 0.4; the Laplacian is not normalised, nor are rows of eigenvectors;
    and if every window is alone in its cluster, all are one speaker.

    Not as in the original: bounds hold to the end, where the original ignores a given number of
    speakers in short recordings and may merge below it in others; nothing is left to chance, nor
    to the order of windows: similarities equal to the last one kept are kept as well, eigenvectors
    come from a dense solver, and k-means is the best of ten starts from a fixed seed; and if the
    graph falls into more pieces than there may be speakers, there are as many speakers as there
    may be, where the original goes by rounding errors.

    Memory grows with the square of the number of windows, time with its cube.
    """
    from pyannote.audio.pipelines.clustering import BaseClustering

    if not (0 < pruning <= 1 and 0 < merge <= 1):
        raise ValueError(f"pruning is {pruning}, merge is {merge}: give numbers in (0, 1]")
    if not (num_speakers or max_speakers):
        max_speakers = max(_SPEAKERS, min_speakers or 1)
    voices = unit(voices)
    known = voices.any(axis=1)
    clusters = np.where(known, 0, NOBODY)
    size = np.count_nonzero(known)
    bounds = num_speakers, min_speakers, max_speakers
    wanted, fewest, most = BaseClustering().set_num_clusters(size, *bounds)
    if size > 1:
        if size < _SHORT:
            found = threshold_clusters(voices[known], _SHORT_DISTANCE, *bounds)
        else:
            found = _cut_graph(_graph(voices[known], pruning), wanted, fewest, most)
        found = _absorb_minor(found, voices[known], fewest)
        clusters[known] = _merge_alike(found, voices[known], merge, fewest)
    return _renumber(clusters)


def face_clusters(
    embeddings: Mapping[int, np.ndarray],
    spans: Mapping[int, Sequence[tuple[int, int]]],
    threshold: float = 0.25,
) -> list[list[int]]:
    """Cluster face tracks that show one face.

    Average linkage, as published (:func:`~pyannote_av.fusion.persons.group_tracks` is of complete
    linkage), in which simultaneous tracks are never joined.

    Parameters
    ----------
    embeddings : mapping of track to (dimension,) array
        Of any length. Tracks without one stay alone.
    spans : mapping of track to (first, last) grid frames
        When each track is on screen. These are the tracks that are clustered.
    threshold : float
        Mean cosine similarity from which two clusters show the same face.

    Returns
    -------
    groups : list of lists of tracks
        In order of the first track of each in `spans`.

    Notes
    -----
    The original clusters single pictures, one every 0.2 s, of the only face that talks then, and
    knows nothing of tracks: it may join faces that are on screen together.
    """
    from scipy.spatial.distance import pdist

    tracks = list(spans)
    labels = -1 - np.arange(len(tracks))
    known = [i for i, track in enumerate(tracks) if track in embeddings]
    if known:
        vectors = unit(np.stack([embeddings[tracks[i]] for i in known]))
        distance = pdist(vectors, "sqeuclidean") / 2  # of unit vectors, one minus the similarity
        apart = np.argwhere(np.triu(simultaneous([spans[tracks[i]] for i in known])))
        labels[known] = pair_clusters(distance, 1.0 - threshold, apart=apart)
    groups: dict[int, list[int]] = {}
    for track, label in zip(tracks, labels.tolist(), strict=True):
        groups.setdefault(label, []).append(track)
    return list(groups.values())


def join(
    audio_clusters: np.ndarray,
    windows: np.ndarray,
    faces: Sequence[Sequence[tuple[float, float]]],
    voices: np.ndarray,
) -> np.ndarray:
    """Relabel clusters of voices by the faces that talk in them.

    1. A face has a voice if it talks for more than 1 s of some window, in one go: the mean of
       such windows, each counted as often as that happens. Faces without a voice are ignored.
    2. A face is one of the speakers of an audio cluster if it talks for more than 0.5 s while the
       cluster does; the windows of a cluster are joined for that, and the last one is left out.
    3. All windows of a cluster with one such face get the identity of the face: also those in
       which it is not visible. Clusters with the same one face thereby become one speaker.
    4. A cluster with several is split among them, each window to the face whose voice is most like
       its own. Only voices decide, not which face is seen talking in the window; and nobody stays
       behind, so a speaker who is not seen but was in this cluster is lost.
    5. Windows of clusters without such a face keep their cluster.

    Parameters
    ----------
    audio_clusters : (n,) int array
        See :func:`spectral_clusters`. ``NOBODY`` stays nobody.
    windows : (n, 2) array
        Start and end, in seconds. Thresholds were published for windows of 1.5 s every 0.75 s;
        windows of 1 s or less give no face a voice.
    faces : sequence of sequences of (start, end), in seconds
        For every cluster of faces, the disjoint spans in which it is seen talking: in the original
        spans in which no other face is.
    voices : (n, dimension) array
        Embeddings of any length.

    Returns
    -------
    clusters : (n,) int array
        Numbered from 0 in order of appearance.

    Raises
    ------
    ValueError
        When there are not as many clusters and windows as voices.

    Notes
    -----
    That the last window of a cluster is left out in step 2, so that clusters of one window never
    meet a face, is odd, but so in the original, of which a loop ends one too early. Neither minds
    how many speakers there were to be.
    """
    audio_clusters = np.asarray(audio_clusters, dtype=int)
    windows = np.asarray(windows, dtype=np.float64).reshape(-1, 2)
    voices = unit(voices)
    if not len(audio_clusters) == len(windows) == len(voices):
        raise ValueError(
            f"{len(audio_clusters)} clusters, {len(windows)} windows and {len(voices)} voices: "
            "give one of each per window"
        )
    known = audio_clusters != NOBODY
    spans = [np.asarray(face, dtype=np.float64).reshape(-1, 2) for face in faces]
    samples = [(_overlap(windows, face) > _SAMPLE).sum(axis=1) * known for face in spans]
    heard = {f: voice for f, count in enumerate(samples) if (voice := count @ voices).any()}

    clusters, free = audio_clusters.copy(), audio_clusters.max(initial=NOBODY) + 1
    for cluster in np.unique(audio_clusters[known]):
        own = np.flatnonzero(audio_clusters == cluster)
        times = _joined(windows[own])
        talking = [f for f in heard if _overlap(times, spans[f]).sum() > _TALK]
        if talking:
            alike = voices[own] @ unit(np.stack([heard[f] for f in talking])).T
            clusters[own] = free + np.array(talking)[alike.argmax(axis=1)]
    return _renumber(clusters)


def _graph(voices: np.ndarray, pruning: float) -> np.ndarray:
    """Affinity of windows, (n, n): cosine similarity to those that are most alike, made mutual."""
    size = len(voices)
    affinity = voices @ voices.T
    dropped = min(int((1 - pruning) * size), size - _NEIGHBOURS)
    last_kept = np.partition(affinity, dropped, axis=1)[:, dropped]
    affinity[affinity < last_kept[:, None] - _EQUAL] = 0.0
    affinity = (affinity + affinity.T) / 2
    np.fill_diagonal(affinity, 0.0)
    return affinity


def _cut_graph(affinity: np.ndarray, wanted: int | None, fewest: int, most: int) -> np.ndarray:
    """Cut a graph, (n, n), where the spectrum of its Laplacian has the largest gap."""
    from scipy.linalg import eigh
    from sklearn.cluster import KMeans

    laplacian = np.diag(np.abs(affinity).sum(axis=1)) - affinity
    last = min(most, len(affinity) - 1)
    values, vectors = eigh(laplacian, subset_by_index=[0, last], overwrite_a=True)
    gaps = np.diff(values)[fewest - 1 :]
    if wanted is None:
        wanted = fewest + int(gaps.argmax()) if (gaps > _EQUAL).any() else most
    return KMeans(wanted, n_init=10, random_state=0).fit_predict(vectors[:, :wanted])


def _absorb_minor(clusters: np.ndarray, voices: np.ndarray, fewest: int) -> np.ndarray:
    """Clusters of one window join the nearest larger one, unless too few would remain."""
    names, sizes = np.unique(clusters, return_counts=True)
    major = names[sizes > _MINOR]
    if len(major) < fewest:
        return clusters if fewest > 1 else np.zeros_like(clusters)
    nearest = major[(voices @ _mean_voices(clusters, voices, major).T).argmax(axis=1)]
    return np.where(np.isin(clusters, major), clusters, nearest)


def _merge_alike(clusters: np.ndarray, voices: np.ndarray, merge: float, fewest: int) -> np.ndarray:
    """Merge the two clusters that are most alike, again and again."""
    while len(names := np.unique(clusters)) > fewest:
        means = _mean_voices(clusters, voices, names)
        alike = np.triu(means @ means.T, 1)
        first, second = np.unravel_index(alike.argmax(), alike.shape)
        if alike[first, second] < merge:
            break
        clusters = np.where(clusters == names[second], names[first], clusters)
    return clusters


def _mean_voices(clusters: np.ndarray, voices: np.ndarray, names: np.ndarray) -> np.ndarray:
    return unit(np.stack([voices[clusters == name].mean(axis=0) for name in names]))


def _overlap(windows: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Seconds shared by (n, 2) windows and (m, 2) spans, (n, m)."""
    end = np.minimum.outer(windows[:, 1], spans[:, 1])
    return (end - np.maximum.outer(windows[:, 0], spans[:, 0])).clip(min=0.0)


def _joined(windows: np.ndarray) -> np.ndarray:
    """Windows that overlap become one, (m, 2); the last is left out, as in the original."""
    from pyannote.core import Segment, Timeline

    support = Timeline(Segment(*window) for window in sorted(windows.tolist())[:-1]).support()
    return np.array([tuple(span) for span in support]).reshape(-1, 2)


def _renumber(clusters: np.ndarray) -> np.ndarray:
    """Number clusters from 0 in order of appearance; nobody stays nobody."""
    known = clusters != NOBODY
    _, first, inverse = np.unique(clusters[known], return_index=True, return_inverse=True)
    out = np.full(len(clusters), NOBODY)
    out[known] = first.argsort().argsort()[inverse]
    return out
