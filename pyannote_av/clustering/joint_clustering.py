"""Joint clustering of voices and faces, after 3D-Speaker.

This is a baseline. It implements the published method, including thresholds:
https://github.com/modelscope/3D-Speaker (Apache-2.0), ``speakerlab/process/cluster.py`` and
``egs/3dspeaker/speaker-diarization/conf/diar_video.yaml``. Notes describe deliberate differences.
In addition, all embeddings are normalised to unit length, while the original averages raw ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pyannote_av.clustering.linkage import NOBODY, pair_clusters, threshold_clusters
from pyannote_av.fusion.identities import simultaneous

_SHORT, _SHORT_DISTANCE = (
    40,
    0.6,
)  # with fewer windows: average linkage, cut at this cosine distance
_SPEAKERS = 15  # default maximum
_NEIGHBOURS = 6  # minimum number of similarities kept per row, including self-similarity
_MINOR = 1  # clusters of at most this many windows are absorbed by larger ones
_SAMPLE = 1.0  # a window is a voice sample of a face that talks longer than this in it, seconds
_TALK = 0.5  # a face is a speaker of a cluster if it talks longer than this during it, seconds
_EQUAL = 1e-9  # tolerance for equal similarities and equal eigenvalues


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Normalise (n, dimension) embeddings to unit length. Those not finite become 0; 0 stays 0."""
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
    """Cluster windows by spectral clustering of voice similarities.

    The affinity graph connects each window to the most similar ones. The number of speakers is the
    number of eigenvalues of its Laplacian before the largest gap, and k-means clusters the
    eigenvectors. Then single-window clusters join the nearest larger cluster, and clusters are
    merged in order of similarity while their mean embeddings are similar enough.

    Parameters
    ----------
    voices : (n, dimension) array
        Speaker embeddings of any norm. Those that are 0 or not finite are not clustered.
    num_speakers, min_speakers, max_speakers : int, optional
        Known number of speakers, or bounds on it. Defaults to between 1 and 15. There are never
        more speakers than windows.
    pruning : float
        Share of the similarities of a window that are kept, in (0, 1]. At least 6 are kept.
    merge : float
        Minimum cosine similarity of the mean embeddings of two merged clusters, in (0, 1].

    Returns
    -------
    clusters : (n,) int array
        Numbered from 0 in order of appearance. ``NOBODY`` for windows that are not clustered.

    Raises
    ------
    ValueError
        If bounds contradict each other, or if `pruning` or `merge` is not in (0, 1].

    Notes
    -----
    As in the original, fewer than 40 windows are clustered by average linkage instead, cut at a
    cosine similarity of 0.4. Neither the Laplacian nor the rows of eigenvectors are normalised. If
    every cluster has a single window, all windows get the same speaker.

    There are three differences from the original:

    * Bounds always hold. The original ignores a given number of speakers in short recordings, and
      may merge below it in others.
    * The result is deterministic and does not depend on the order of windows. Similarities equal to
      the last one kept are kept too, eigenvectors come from a dense solver, and k-means takes the
      best of ten starts with a fixed seed.
    * If the graph has more connected components than the maximum number of speakers, the result has
      this maximum number. In the original, rounding errors decide.

    Memory grows with the square of the number of windows, and time with its cube.
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
    """Cluster face tracks that show the same face.

    The clustering uses average linkage, as published, and never joins simultaneous tracks.
    (:func:`~pyannote_av.fusion.identities.group_tracks` uses complete linkage.)

    Parameters
    ----------
    embeddings : mapping of track to (dimension,) array
        Face embeddings of any norm. Each track without an embedding forms its own group.
    spans : mapping of track to (first, last) grid frames
        Frames in which each track is visible. All tracks of this mapping are clustered.
    threshold : float
        Minimum mean cosine similarity of clusters that show the same face.

    Returns
    -------
    groups : list of lists of tracks
        Ordered by the position of their first track in `spans`.

    Notes
    -----
    The original clusters single face crops, one every 0.2 s, taken from frames with exactly one
    talking face. It does not use tracks, so it may join faces that are visible simultaneously.
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
    """Relabel clusters of voices by the faces that talk during them.

    1. The voice of a face is the mean embedding of the windows in which the face talks for more
       than 1 s without interruption. A window counts once per such span. Faces without such a
       window are ignored.
    2. A face is a speaker of an audio cluster if it talks for more than 0.5 s during this cluster.
       For this, the windows of the cluster are joined, except the last one.
    3. If a cluster has one such face, all its windows get the identity of this face, including
       windows in which the face is not visible. Clusters with the same single face thus become one
       speaker.
    4. If a cluster has several such faces, each window gets the face whose voice is most similar to
       its embedding. Only voices are compared, not which face talks in the window. No window keeps
       the old cluster, so an off-screen speaker of this cluster is lost.
    5. If a cluster has no such face, its windows keep their cluster.

    Parameters
    ----------
    audio_clusters : (n,) int array
        See :func:`spectral_clusters`. ``NOBODY`` does not change.
    windows : (n, 2) array
        Start and end, in seconds. Thresholds were published for windows of 1.5 s every 0.75 s.
        With windows of 1 s or less, no face has a voice.
    faces : sequence of sequences of (start, end), in seconds
        Disjoint spans in which each face cluster talks. In the original, no other face talks in
        these spans.
    voices : (n, dimension) array
        Speaker embeddings of any norm.

    Returns
    -------
    clusters : (n,) int array
        Numbered from 0 in order of appearance.

    Raises
    ------
    ValueError
        If clusters, windows and voices differ in number.

    Notes
    -----
    Step 2 leaves out the last window of a cluster because a loop of the original ends one step too
    early. As a consequence, clusters of one window are never relabelled. Like the original, this
    function ignores requested numbers of speakers.
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
    voice_of = {f: voice for f, count in enumerate(samples) if (voice := count @ voices).any()}

    clusters, free = audio_clusters.copy(), audio_clusters.max(initial=NOBODY) + 1
    for cluster in np.unique(audio_clusters[known]):
        own = np.flatnonzero(audio_clusters == cluster)
        times = _joined(windows[own])
        talking = [f for f in voice_of if _overlap(times, spans[f]).sum() > _TALK]
        if talking:
            alike = voices[own] @ unit(np.stack([voice_of[f] for f in talking])).T
            clusters[own] = free + np.array(talking)[alike.argmax(axis=1)]
    return _renumber(clusters)


def _graph(voices: np.ndarray, pruning: float) -> np.ndarray:
    """Affinity of windows, (n, n): symmetrised cosine similarity to the most similar windows."""
    size = len(voices)
    affinity = voices @ voices.T
    dropped = min(int((1 - pruning) * size), size - _NEIGHBOURS)
    last_kept = np.partition(affinity, dropped, axis=1)[:, dropped]
    affinity[affinity < last_kept[:, None] - _EQUAL] = 0.0
    affinity = (affinity + affinity.T) / 2
    np.fill_diagonal(affinity, 0.0)
    return affinity


def _cut_graph(affinity: np.ndarray, wanted: int | None, fewest: int, most: int) -> np.ndarray:
    """Partition a graph, (n, n), by the largest eigengap of its Laplacian."""
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
    """Move single-window clusters to the nearest larger cluster, unless too few would remain."""
    names, sizes = np.unique(clusters, return_counts=True)
    major = names[sizes > _MINOR]
    if len(major) < fewest:
        return clusters if fewest > 1 else np.zeros_like(clusters)
    nearest = major[(voices @ _mean_voices(clusters, voices, major).T).argmax(axis=1)]
    return np.where(np.isin(clusters, major), clusters, nearest)


def _merge_alike(clusters: np.ndarray, voices: np.ndarray, merge: float, fewest: int) -> np.ndarray:
    """Merge the two most similar clusters repeatedly, down to `fewest` or similarity `merge`."""
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
    """Duration of overlap of (n, 2) windows and (m, 2) spans, (n, m), in seconds."""
    end = np.minimum.outer(windows[:, 1], spans[:, 1])
    return (end - np.maximum.outer(windows[:, 0], spans[:, 0])).clip(min=0.0)


def _joined(windows: np.ndarray) -> np.ndarray:
    """Join overlapping windows, (m, 2). The last window is left out, as in the original."""
    from pyannote.core import Segment, Timeline

    support = Timeline(Segment(*window) for window in sorted(windows.tolist())[:-1]).support()
    return np.array([tuple(span) for span in support]).reshape(-1, 2)


def _renumber(clusters: np.ndarray) -> np.ndarray:
    """Number clusters from 0 in order of appearance. ``NOBODY`` does not change."""
    known = clusters != NOBODY
    _, first, inverse = np.unique(clusters[known], return_index=True, return_inverse=True)
    out = np.full(len(clusters), NOBODY)
    out[known] = first.argsort().argsort()[inverse]
    return out
