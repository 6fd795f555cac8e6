"""Rules of speculative cascades: which distribution stands, given the draft's and the heavy model's."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vj.errors import InputError

Array = npt.NDArray[np.float64]

_SUM_ERROR = 1e-3
"""How far from 1 a distribution may add up: half-precision softmax is off by some 5e-4, logits and counts by far more.
What passes is normalised."""

_ALPHA_RANGES = {
    "lossless": (0.0, 0.0),
    "lenient": (0.0, 1.0),
    "chow": (0.0, 1.0),
    "diff": (-1.0, 1.0),
    "opt": (-math.inf, math.inf),
    "token_v1": (-1.0, 1.0),
    "token_v2": (-1.0, 1.0),
    "token_v3": (0.0, 1.0),
}


@dataclass(frozen=True, slots=True)
class TokenRule:
    """Makes the distribution that stands out of the draft's q and the heavy model's p.

    ======== ================================================================================= =====================
    name     the target distribution                                                           source
    ======== ================================================================================= =====================
    lossless p                                                                                 [1] algorithm 1
    lenient  accepts with min(1, p(x) / ((1 - alpha) q(x))), else draws from max(0, p - q)     [1] appendix A.5
    chow     q if max q >= 1 - alpha, else p                                                   [2] equation 2
    diff     q if max q >= max p - alpha, else p                                               [2] equation 5
    opt      q if max q >= max p - alpha D(p, q), else p                                       [2] equation 10
    token_v1 q(x) where q(x) >= max p - alpha; the mass of the other tokens goes to p          [2] equation 13
    token_v2 q(x) where p(x) >= max p - alpha; the same                                        [2] equation 14
    token_v3 q(x) where p(x) >= (1 - alpha) max p; the same                                    [2] equation 15
    ======== ================================================================================= =====================

    D is the total variation distance, the sum of max(0, p - q). A larger alpha leaves more to the draft. alpha means
    something else in each rule, so that equal alphas do not compare.

    Parameters
    ----------
    name : str
    alpha : float
        From 0 to 1 for lenient (below 1), chow and token_v3; -1 to 1 for diff, token_v1 and token_v2; any finite number
        for opt; 0 for lossless. At the lower end the heavy model decides, except that token_v3 always accepts the token
        that it finds likeliest; at the upper end the draft always stands.

    Raises
    ------
    InputError
        A rule that there is not, or an alpha out of its range.

    References
    ----------
    .. [1] Leviathan, Kalman, Matias: "Fast Inference from Transformers via Speculative Decoding", ICML 2023.
    .. [2] Narasimhan et al.: "Faster Cascades via Speculative Decoding", ICLR 2025; equations as the authors' published
       notebook numbers them.
    """

    name: str = "lossless"
    alpha: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in _ALPHA_RANGES:
            raise InputError(f"expected a rule among {', '.join(_ALPHA_RANGES)}, got {self.name!r}")
        low, high = _ALPHA_RANGES[self.name]
        number = isinstance(self.alpha, numbers.Real) and not isinstance(self.alpha, bool)
        if not number or not math.isfinite(self.alpha) or not low <= self.alpha <= high:
            raise InputError(f"expected an alpha from {low:g} to {high:g} for {self.name}, got {self.alpha!r}")
        if self.name == "lenient" and self.alpha == 1:
            raise InputError("expected an alpha below 1 for lenient, got 1: at 1 the draft always stands")

    def asks(self, draft: Array) -> bool:
        """Whether the heavy model matters where the draft's distribution, before any temperature, is this one."""
        return self.name != "chow" or bool(draft.max() < 1 - self.alpha)

    def target(
        self, draft: Array, heavy: Array, draft_plain: Array | None = None, heavy_plain: Array | None = None
    ) -> Array:
        """Distribution that stands.

        Parameters
        ----------
        draft, heavy : ndarray of float64, shape (..., tokens)
            The distributions that are sampled from.
        draft_plain, heavy_plain : ndarray of float64, shape (..., tokens), optional
            The same before the temperature was applied: confidences are compared with these, as by the paper's authors.

        Returns
        -------
        ndarray of float64, shape (..., tokens)
        """
        q, p = draft, heavy
        q1 = q if draft_plain is None else draft_plain
        p1 = p if heavy_plain is None else heavy_plain
        if self.name == "lossless":
            return p
        if self.name == "lenient":
            stands: Array = np.minimum(q, p / (1 - self.alpha))
            return stands + _missing(stands) * normalised(np.maximum(0, p - q), p)
        top_q, top_p = q1.max(-1, keepdims=True), p1.max(-1, keepdims=True)
        if self.name.startswith("token"):
            if self.name == "token_v1":
                good = q1 >= top_p - self.alpha
            elif self.name == "token_v2":
                good = p1 >= top_p - self.alpha
            else:
                good = p1 >= (1 - self.alpha) * top_p
            stands = np.where(good, q, 0)
            return stands + _missing(stands) * p
        if self.name == "chow":
            stays = top_q >= 1 - self.alpha
        elif self.name == "diff":
            stays = top_q >= top_p - self.alpha
        else:
            stays = top_q >= top_p - self.alpha * np.maximum(0, p - q).sum(-1, keepdims=True)
        return np.where(stays, q, p)


LOSSLESS = TokenRule()
"""What stands is distributed as the heavy model says."""


def checked_distribution(found: Any, who: str, place: int, size: int | None = None) -> Array:
    """Return a next-token distribution as float64 that adds up to 1.

    Raises
    ------
    InputError
        It is no distribution, or over another number of tokens than `size`; the message names who gave it and after
        how many tokens.
    """
    where = f"{who}, after {place} tokens: expected a distribution"
    try:
        array = np.array(found, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{where}, got {type(found).__name__}") from None
    if array.ndim != 1 or not array.size:
        raise InputError(f"{where} of shape (tokens,), got shape {array.shape}")
    if size is not None and array.size != size:
        raise InputError(f"{where} over {size} tokens, got {array.size}")
    total = float(array.sum())
    # NaN fails both comparisons.
    if not array.min() >= 0:
        raise InputError(f"{where}, got {array[~(array >= 0)][0]} among its numbers")
    if not abs(total - 1) <= _SUM_ERROR:
        raise InputError(f"{where} that adds up to 1, got a sum of {total:g}")
    return array / total


def normalised(weights: Array, otherwise: Array) -> Array:
    """Weights that add up to 1; another distribution where all are zero, which only rounding can ask for."""
    total = weights.sum(-1, keepdims=True)
    return np.where(total > 0, weights / np.where(total > 0, total, 1), otherwise)


def _missing(stands: Array) -> Array:
    """Return what weights lack to add up to 1."""
    lack: Array = np.maximum(0, 1 - stands.sum(-1, keepdims=True))
    return lack
