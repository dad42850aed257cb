"""What a candidate adds to S = ln det Sigma, and the gradient by its features: exact, for many candidates at once.

With D the rows delta_i = b_i - mu of the N items of a candidate, M' = M + N, J = 1 - (1/M') 1 1^T, Sigma = L L^T and
Y = D L^-T (equation 5 of the paper, augmented by the candidate):

    Sigma' = (M/M') Sigma + (1/M') D^T J D
    S'     = S + m ln(M/M') + ln det(1 + (1/M) J Y Y^T)
    dS'/db_i = (2/M') Sigma'^-1 (b_i - mu')

J has the symmetric root R = 1 - a 1 1^T with (1 - a N)^2 = M/M'. With Z = R Y and A = 1 + (1/M) Z Z^T, an N x N matrix
with eigenvalues of at least one, det(1 + (1/M) J Y Y^T) = det A, and the rows of (2/M) R A^-1 Z L^-1 are the gradient
(Woodbury's identity). In the mode "config", the one item is the mean of the b_i, and A is a number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grace_md.smax.candidate import Batch
from grace_md.smax.statistics import ModeSnapshot, SingularStatisticsError, Snapshot

__all__ = ["EntropyGain", "entropy_gain", "rank_n_gain"]

Floats = NDArray[np.float64]
SIZE_CLASSES = (4, 10, 20, 40, 80, 160)


@dataclass(frozen=True)
class EntropyGain:
    """Gains of S candidates.

    Attributes
    ----------
    normalised : float64 [S]
        (M'/n_new) [S(D + c) - S(D)] with n_new = N for the mode "atom" and 1 for "config".
    gradient : float64 [N, m]
        Derivatives of `normalised` by the features of the atoms.
    d2 : float64 [N]
        Mahalanobis squares: of each atom, or of the mean of its candidate in the mode "config".
    """

    normalised: Floats
    gradient: Floats
    d2: Floats


def rank_n_gain(snapshot: ModeSnapshot, items: Floats) -> float:
    """S' - S for `items` [n, m] added to the statistics of `snapshot`, without cancellation.

    Its rounding is relative to the gain, not to S; that matters once the gain, of order n/M, is far below S.
    """
    count = np.array([len(items)])
    whitened = (items - snapshot.mean) @ snapshot.whitening.T
    log_det, _ = _gram(snapshot.count, whitened[None], count)
    return float(log_det[0] - items.shape[1] * np.log1p(len(items) / snapshot.count))


def entropy_gain(snapshot: Snapshot, batch: Batch, features: Floats) -> EntropyGain:
    """Return gains and gradients of all candidates of `batch`, each by its mode, from `features` [N, m].

    Raises
    ------
    SingularStatisticsError
        If `snapshot` lacks the statistics of a mode that a candidate has.
    """
    normalised = np.empty(len(batch))
    gradient = np.empty_like(features)
    d2 = np.empty(len(features))
    for kind, chosen in (("atom", ~batch.config), ("config", batch.config)):
        if not np.any(chosen):
            continue
        part = snapshot.atom if kind == "atom" else snapshot.config
        if part is None:
            raise SingularStatisticsError(
                f"There are no statistics of the mode {kind}; set `statistics.mode` to mixed."
            )
        atoms = slice(None) if np.all(chosen) else chosen[batch.owner]
        function = _atom_gain if kind == "atom" else _config_gain
        normalised[chosen], gradient[atoms], d2[atoms] = function(part, batch.counts[chosen], features[atoms])
    return EntropyGain(normalised, gradient, d2)


def _gram(count: int, whitened: Floats, counts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Ln det A [S] and R A^-1 Z [S, n, m] of padded rows Y [S, n, m], of which the first counts[s] are used."""
    used = (np.arange(whitened.shape[1]) < counts[:, None])[:, :, None]
    root = ((1.0 - np.sqrt(count / (count + counts))) / counts)[:, None, None]
    z = whitened - root * whitened.sum(axis=1, keepdims=True) * used
    a = z @ z.transpose(0, 2, 1) / count
    a[:, np.arange(a.shape[1]), np.arange(a.shape[1])] += 1.0
    log_det = 2.0 * np.sum(np.log(np.diagonal(np.linalg.cholesky(a), axis1=1, axis2=2)), axis=1)
    solved = np.linalg.inv(a) @ z  # eigenvalues of A are at least one: nothing is lost
    solved -= root * solved.sum(axis=1, keepdims=True) * used
    return log_det, solved


def _atom_gain(part: ModeSnapshot, counts: NDArray[np.int64], features: Floats) -> tuple[Floats, Floats, Floats]:
    whitened = (features - part.mean) @ part.whitening.T
    log_det, solved = np.empty(len(counts)), np.empty_like(whitened)
    owner = np.repeat(np.arange(len(counts)), counts)
    # Candidates of similar size share a padded array: most are much smaller than the largest.
    size_class = np.searchsorted(SIZE_CLASSES, counts)
    for present in np.unique(size_class):
        chosen = size_class == present
        atoms = chosen[owner]
        used = np.arange(counts[chosen].max()) < counts[chosen][:, None]
        padded = np.zeros((*used.shape, features.shape[1]))
        padded[used] = whitened[atoms]
        log_det[chosen], group = _gram(part.count, padded, counts[chosen])
        solved[atoms] = group[used]
    scale = (part.count + counts) / counts
    normalised = scale * (log_det - features.shape[1] * np.log1p(counts / part.count))
    gradient = (solved * (2.0 / part.count * scale)[owner, None]) @ part.whitening
    return normalised, gradient, np.einsum("ik,ik->i", whitened, whitened)


def _config_gain(part: ModeSnapshot, counts: NDArray[np.int64], features: Floats) -> tuple[Floats, Floats, Floats]:
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    means = np.add.reduceat(features, first, axis=0) / counts[:, None]
    whitened = (means - part.mean) @ part.whitening.T
    d2 = np.einsum("sk,sk->s", whitened, whitened)
    total = part.count + 1
    normalised = total * (np.log1p(d2 / total) - features.shape[1] * np.log1p(1.0 / part.count))
    rows = (2.0 / (counts * (1.0 + d2 / total)))[:, None] * (whitened @ part.whitening)
    return normalised, np.repeat(rows, counts, axis=0), np.repeat(d2, counts)
