"""`snowdrop privacy`: the noise for an ε, or the ε of a noise."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from common.counting import counted
from common.errors import SnowdropError
from common.settings import LEAST, NoiseBy, RunSettings

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
    nodes: Annotated[
        int | None,
        typer.Option(min=LEAST, help="with --noise-by sum: nodes that add their parts of it"),
    ] = None,
) -> None:
    """Tell the noise that a training needs for an ε, or the ε that a noise gives."""
    from server_app.accountant import epsilon, spare_noise

    if (target_epsilon is None) == (noise is None):
        raise SnowdropError("give either --target-epsilon, for the noise, or --noise, for ε")
    if nodes is not None and noise_by != "sum":
        raise SnowdropError("--nodes says how much noise of the sum there is: give --noise-by sum")
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
    in_mean = deviation(noise, mechanism, noise_by, fraction * users)
    given = {
        "average": "users",
        "clip_norm": f"{clip_norm:g}",
        f"{mechanism}_scale": f"{noise:.6g}",
        "noise_by": noise_by,
        "fraction": f"{fraction:g}",
        "rounds": str(rounds),
        **({"privacy_delta": f"{at:g}"} if delta is not None else {}),
        **({"secure_sums": "true"} if noise_by == "sum" else {}),
        **({"nodes": str(nodes)} if nodes is not None else {}),
    }
    typer.echo(
        f"{mechanism}_scale = {noise:.6g} with clip_norm = {clip_norm:g}, noise_by = {noise_by}, "
        f"fraction = {fraction:g}\n"
        f"ε = {each:.4g} in a round, {told(noise):.4g} over {counted(rounds, 'round')}, "
        f"at δ = {at:.4g}\n"
        f"the mean change of a round's users carries noise of standard deviation "
        f"{least}{in_mean:.3g} on every entry"
    )
    if nodes is not None:
        typer.echo(f"while all {nodes} nodes answer, it is {spare_noise(nodes) * in_mean:.3g}")
    elif noise_by == "sum":
        typer.echo("it is more where more nodes answer than must: --nodes N tells how much")
    typer.echo(f"  {' '.join(f'--set {name}={value}' for name, value in given.items())}")
    if (why := _refused(given)) is not None:
        typer.echo(f"add --set method=NAME, since the default method refuses these: {why}")


def _refused(given: Mapping[str, str]) -> str | None:
    """Why the default method cannot have these settings; None where it can."""
    try:
        RunSettings.parse({"nodes": LEAST, **given})
    except SnowdropError as error:
        return str(error)
    return None


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
