"""`snowdrop privacy`: the noise for an ε, or the ε of a noise."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from common.errors import SnowdropError
from common.settings import NoiseBy

if TYPE_CHECKING:
    from server_app.accountant import Release

Mechanism = Literal["gaussian", "laplace"]
_CLOSE = 1e-3
_LEAST, _MOST = 2.0**-20, 2.0**60


def privacy(
    rounds: Annotated[int, typer.Option(min=1, help="rounds of the training")],
    users: Annotated[int, typer.Option(min=1, help="users of all nodes")],
    target_epsilon: Annotated[
        float | None, typer.Option(help="ε over all rounds, for which noise is sought")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="gaussian_scale or laplace_scale, of which ε is told")
    ] = None,
    fraction: Annotated[float, typer.Option(help="share of users that train in a round")] = 1.0,
    delta: Annotated[float | None, typer.Option(help="δ of ε (default: 1 / users²)")] = None,
    clip_norm: Annotated[float, typer.Option(help="bound C on a user's change")] = 1.0,
    mechanism: Annotated[
        Mechanism, typer.Option(help="gaussian with an L2 bound, or laplace with an L1 bound")
    ] = "gaussian",
    noise_by: Annotated[
        NoiseBy,
        typer.Option(
            help="who adds it: nodes for each user; sum: nodes together, under secure sums; or a "
            "trusted server to the sum"
        ),
    ] = "nodes",
) -> None:
    """Tell the noise that a training needs for an ε, or the ε that a noise gives."""
    from server_app.accountant import epsilon

    if (target_epsilon is None) == (noise is None):
        raise SnowdropError("give either --target-epsilon, for the noise, or --noise, for ε")
    at = 1.0 / max(users, 2) ** 2 if delta is None else delta
    _check(at, fraction, clip_norm)

    def told(scale: float) -> float:
        return epsilon([_release(scale, clip_norm, mechanism, noise_by, fraction)] * rounds, at)

    if noise is None:
        assert target_epsilon is not None
        if target_epsilon <= 0:
            raise SnowdropError(f"--target-epsilon {target_epsilon:g} must be above 0")
        noise = float(f"{least_noise(told, target_epsilon) * (1 + 1e-6):.6g}")  # as it is printed
    elif noise <= 0:
        raise SnowdropError(f"--noise {noise:g} must be above 0: without noise there is no ε")
    each = epsilon([_release(noise, clip_norm, mechanism, noise_by, fraction)], at)
    least = "at least " if noise_by == "sum" else ""  # more where more nodes are there than must be
    typer.echo(
        f"{mechanism}_scale = {noise:.6g} with clip_norm = {clip_norm:g}, noise_by = {noise_by}, "
        f"fraction = {fraction:g}\n"
        f"ε = {each:.4g} in a round, {told(noise):.4g} over {rounds} rounds, at δ = {at:.4g}\n"
        f"the mean change of a round's users carries noise of standard deviation "
        f"{least}{deviation(noise, mechanism, noise_by, fraction * users):.3g} on every entry\n"
        f"  --set average=users --set clip_norm={clip_norm:g} --set {mechanism}_scale={noise:.6g} "
        f"--set noise_by={noise_by} --set fraction={fraction:g}"
        f" --set rounds={rounds}"
        + (f" --set privacy_delta={at:g}" if delta is not None else "")
        + (" --set secure_sums=true" if noise_by == "sum" else "")
    )


def least_noise(told: Callable[[float], float], target: float) -> float:
    """The least noise whose ε is at most ``target``, within a thousandth.

    Parameters
    ----------
    told : Callable[[float], float]
        ε of a noise, falling.
    target : float

    Raises
    ------
    SnowdropError
        If no noise has an ε as small.
    """
    high = 1.0
    while told(high) > target:
        high *= 2
        if high > _MOST:
            raise SnowdropError(f"no noise has ε = {target:g} at this δ: raise one of them")
    low = high / 2
    while low > _LEAST and told(low) <= target:
        low, high = low / 2, low
    while high > low * (1 + _CLOSE):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if told(middle) > target else (low, middle)
    return high


def deviation(scale: float, mechanism: Mechanism, noise_by: NoiseBy, users: float) -> float:
    """Standard deviation of the noise in the mean over the users of a round."""
    single = scale * 2**0.5 if mechanism == "laplace" else scale
    return single / users**0.5 if noise_by == "nodes" else single / users


def _release(
    scale: float, clip_norm: float, mechanism: Mechanism, noise_by: NoiseBy, fraction: float
) -> "Release":
    from common.settings import TrainingSettings
    from server_app.accountant import release

    try:
        settings = TrainingSettings(
            average="users",
            clip_norm=clip_norm,
            fraction=fraction,
            noise_by=noise_by,
            laplace_scale=scale if mechanism == "laplace" else 0.0,
            gaussian_scale=scale if mechanism == "gaussian" else 0.0,
        )
    except ValueError as error:
        raise SnowdropError(f"noise_by = {noise_by} needs --mechanism gaussian") from error
    found = release(settings)
    assert found is not None
    return found


def _check(delta: float, fraction: float, clip_norm: float) -> None:
    if not 0 < delta < 1:
        raise SnowdropError(f"--delta {delta:g} must lie between 0 and 1")
    if not 0 < fraction <= 1:
        raise SnowdropError(f"--fraction {fraction:g} must be above 0 and at most 1")
    if not clip_norm > 0:
        raise SnowdropError(f"--clip-norm {clip_norm:g} must be above 0")
