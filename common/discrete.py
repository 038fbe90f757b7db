"""Whole numbers with discrete Gaussian noise: what makes ε hold for the very bits that are sent.

A discrete Gaussian variable of variance s² is a whole number z with probability ∝ exp(−z² / 2s²)
(Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", arXiv 2004.00010).
`opendp` draws it exactly, with randomness of the operating system.

With steps as fine as these it is rounded Gaussian noise in all but name, so that ε is that of
Gaussian noise:

- Whole numbers plus rounded Gaussian noise are Gaussian noise that is rounded afterwards, which
  gives away no more than Gaussian noise does.
- Rounded Gaussian noise is z with a probability that is e^x times that of the discrete one, and x
  lies between −1 / 8s² and z² / 8s⁴. Over d numbers this adds at most (d + 100) / s² to ε, and
  10⁻³⁰ e^ε to δ: 10⁻⁴ for the smallest noise that is allowed here and 2²² numbers.
- The sum of k discrete Gaussian variables of variance s² / k each is one of variance s² up to a
  factor e^x with |x| ≤ τ = 10 Σ_j exp(−2π² (s² / k) j / (j + 1)), j from 1 to k − 1 (Kairouz, Liu
  and Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure
  Aggregation", arXiv 2102.06387, theorem 5). Here τ is below the smallest floating-point number.
"""

import numpy as np

EXPONENT = 30
STEP = 2.0**-EXPONENT
"""What tables in masked sums, and all that carries discrete noise, are counted in."""

LEAST_NOISE, MOST_NOISE = 2.0**-12, 2.0**20
"""Standard deviations between which the bound above holds and sums stay within 64 bits."""

LEAST_NORM = 2.0**-20
"""Smallest bound on a user's change: squares of smaller ones may be lost in float64."""

_CHUNK = 2**16


def discrete_gaussian(shape: tuple[int, ...], deviation: float) -> np.ndarray:
    """Independent discrete Gaussian variables, int64 of that shape.

    About 11 µs each.

    Parameters
    ----------
    shape : tuple[int, ...]
    deviation : float
        s, in steps; 0: zeros.
    """
    count = int(np.prod(shape))
    drawn = drawn_exactly(count, deviation) if deviation else np.zeros(count, np.int64)
    return drawn.reshape(shape)


def drawn_exactly(count: int, deviation: float) -> np.ndarray:
    """As many discrete Gaussian variables, int64 (count,), of a deviation above 0."""
    from opendp.domains import atom_domain, vector_domain
    from opendp.measurements import make_gaussian
    from opendp.metrics import l2_distance
    from opendp.mod import enable_features

    enable_features("contrib")
    space = vector_domain(atom_domain(T="i64")), l2_distance(T="f64")
    noisy = make_gaussian(*space, scale=deviation)
    drawn = np.zeros(count, np.int64)
    for begin in range(0, count, _CHUNK):
        part = drawn[begin : begin + _CHUNK]
        part[:] = noisy(part.tolist())
    return drawn
