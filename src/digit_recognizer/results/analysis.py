"""What predictions tell beyond their scores: intervals, calibration, gain and disagreement of an ensemble."""

import numpy as np
from scipy.stats import norm

_LEVEL = 0.95


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion.

    Source: Wilson, 'Probable inference, the law of succession, and statistical inference' (1927).
    """
    if trials == 0:
        return 0.0, 1.0
    z = norm.ppf((1 + _LEVEL) / 2)
    share = successes / trials
    middle = share + z * z / (2 * trials)
    half = z * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    scale = 1 + z * z / trials
    return max(0.0, float((middle - half) / scale)), min(1.0, float((middle + half) / scale))
