"""Charts as inline SVG: drawn once, coloured by the page's style sheet in light, dark and print.

Every mark that has something to say carries it as ``data-tip`` (shown by the page's script) and
every chart its table (`Figure.head` and `Figure.rows`) for those who cannot see it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH = 420
LETTERS = 24
COLOURS = 6
"""Series that get a colour of their own; more are drawn in grey."""

Format = Callable[[float], str]


@dataclass(frozen=True)
class Unit:
    """How numbers are written on an axis, and as single values."""

    tick: Format
    value: Format


PER_CENT = Unit(lambda value: f"{100 * value:.3g} %", lambda value: f"{100 * value:.1f} %")
"""Of fractions."""


@dataclass(frozen=True)
class Figure:
    """One chart with its words."""

    title: str
    svg: Markup
    caption: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    wide: bool = False


@dataclass(frozen=True)
class Series:
    """One line of a chart: points (x, y), and half the height of each point's whisker."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int | None = 0
    spread: Sequence[float] | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Row:
    """One row of a chart of values: a mark for the value, small ones for what it is a mean of."""

    label: str
    value: float
    parts: Sequence[float] = ()
    colour: int | None = 0
    strong: bool = False


@dataclass(frozen=True)
class Interval:
    """One row of a chart of distributions: its 5, 25, 50, 75 and 95 % quantiles."""

    label: str
    quantiles: Sequence[float]
    colour: int | None = 0
    strong: bool = False


@dataclass
class _Canvas:
    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, kind: str = "", more: str = "") -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" {more}>{escape(words)}</text>'
        )

    def below(self, x: float, y: float, words: str) -> None:
        """The title of the horizontal axis, moved where it would be cut off."""
        half = 3.3 * len(words) + 2
        self.text(min(max(x, half), self.width - half), y, words, "axis middle")

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'
        )

    def add(self, element: str) -> None:
        self.parts.append(element)

    def done(self, label: str) -> Markup:
        body = "".join(self.parts)
        return Markup(
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-label="{escape(label)}">{body}</svg>'
        )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``most`` of them."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [0.0 if k == 0 else k * step for k in range(first, last + 1)]


def cut(label: str) -> str:
    """A label that fits beside a chart, shortened in its middle.

    Methods that begin alike, such as a method and its frozen twin, differ at their end.
    """
    if len(label) <= LETTERS:
        return label
    end = LETTERS // 2
    return f"{label[: LETTERS - 1 - end]}…{label[-end:]}"


def from_zero(series: Sequence[Series]) -> bool:
    """Whether the axis of `line_chart` begins at zero: not where lines vary far above it."""
    low, high = _reach([line for line in series if line.points])
    return low <= 0.6 * high or low == high


def line_chart(
    label: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    unit: Unit = PER_CENT,
    x_names: Sequence[str] | None = None,
    x_form: Format = lambda x: f"{x:g}",
    x_log: bool = False,
) -> Markup:
    """Lines with labels at their ends.

    Parameters
    ----------
    label : str
        What the chart shows, for a screen reader.
    series : Sequence[Series]
        At least one, with at least one point.
    x_label, y_label : str
    unit : Unit
    x_form : Format
        How a place on the axis is written.
    x_names : Sequence[str], optional
        Names of the places 0, 1, … of a chart whose x is a group.
    x_log : bool
        A logarithmic axis, on which the places of points are told.
    """
    scale = math.log10 if x_log else float
    named = [line for line in series if line.points]
    longest = max(len(cut(line.label)) for line in named)
    right = min(190.0, 22 + 7.6 * longest)
    left, top, bottom, height = 48.0, 30.0, 46.0, 276.0
    xs = [x for line in named for x, _ in line.points]
    low, high = _reach(named)
    x0, x1 = (0.0, float(len(x_names) - 1)) if x_names else (min(xs), max(xs))
    y0 = min(0.0, low) if from_zero(named) else low - 0.15 * (high - low)
    y1 = high + 0.06 * (high - y0) if high > y0 else y0 + 1.0
    pad = 18.0 if x_names or x_log else 6.0
    plot_width = WIDTH - left - right - 2 * pad

    def px(x: float) -> float:
        share = (scale(x) - scale(x0)) / (scale(x1) - scale(x0)) if x1 > x0 else 0.5
        return left + pad + share * plot_width

    def py(y: float) -> float:
        return top + (1 - (y - y0) / (y1 - y0)) * (height - top - bottom)

    places: dict[float, str] = dict(enumerate(x_names or ()))
    if not x_names:
        places = {x: x_form(x) for x in (sorted(set(xs)) if x_log else _whole_ticks(x0, x1))}
    gaps = [px(after) - px(before) for before, after in pairwise(places)]
    told_all = bool(x_names) or x_log
    crowded = told_all and bool(gaps) and max(map(len, places.values())) * 7.6 > min(gaps)
    canvas = _Canvas(WIDTH, height + 13 * crowded)
    canvas.text(4, 14, y_label, "axis")
    for tick in ticks(y0, y1):
        canvas.line(left, py(tick), WIDTH - right, py(tick), "zero" if tick == 0 else "grid")
        canvas.text(left - 7, py(tick) + 4, unit.tick(tick), "tick end")
    for number, (place, name) in enumerate(places.items()):
        lower = 13 if crowded and number % 2 else 0
        canvas.text(px(place), height - bottom + 18 + lower, name, "tick middle")
    canvas.below((left + WIDTH - right) / 2, canvas.height - 8, x_label)

    ends = _spread_labels([(py(line.points[-1][1]), k) for k, line in enumerate(named)], top)
    for k, line in sorted(enumerate(named), key=lambda pair: pair[1].colour is not None):
        kind = _colour(line.colour)
        points = [(px(x), py(y)) for x, y in line.points]
        canvas.add(f'<g class="series {kind}{" dashed" if line.dashed else ""}">')
        if len(points) > 1:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            canvas.add(f'<path class="line" d="M{path}"/>')
        if line.spread:
            for (x, _), (_, value), spread in zip(points, line.points, line.spread, strict=True):
                canvas.line(x, py(value - spread), x, py(value + spread), "whisker")
        if not line.dashed:
            quiet = len(points) > 24
            for (x, y), (at, value) in zip(points, line.points, strict=True):
                where = x_names[int(at)] if x_names else f"{x_label} {x_form(at)}"
                tip = f"{line.label} · {where}: {unit.value(value)}"
                canvas.add(_marker(line.colour, x, y, tip, quiet=quiet))
        x_end, y_end = points[-1]
        if line.colour is not None:
            y_text = ends[k]
            if abs(y_text - y_end) > 3:
                canvas.line(x_end + 5, y_end, WIDTH - right + 10, y_text, "leader")
            canvas.text(WIDTH - right + 13, y_text + 4, cut(line.label), "name")
        canvas.add("</g>")
    return canvas.done(label)


def value_chart(
    label: str, rows: Sequence[Row], x_label: str, unit: Unit = PER_CENT, bars: bool = False
) -> Markup:
    """Rows with a dot (or a bar) at their value and the value beside it.

    Parameters
    ----------
    label : str
    rows : Sequence[Row]
    x_label : str
    unit : Unit
    bars : bool
        Bars from zero instead of dots: for quantities that add up.
    """
    step, top, bottom = 27.0, 10.0, 40.0
    height = top + step * len(rows) + bottom
    left = min(185.0, 16 + 7.6 * max(len(cut(row.label)) for row in rows))
    right = 58.0
    canvas = _Canvas(WIDTH, height)
    high = max(max([row.value, *row.parts]) for row in rows) * 1.02 or 1.0

    def px(value: float) -> float:
        return left + value / high * (WIDTH - left - right)

    for tick in ticks(0, high, 4):
        canvas.line(px(tick), top, px(tick), height - bottom, "zero" if tick == 0 else "grid")
        canvas.text(px(tick), height - bottom + 16, unit.tick(tick), "tick middle")
    canvas.below((left + WIDTH - right) / 2, height - 6, x_label)
    for k, row in enumerate(rows):
        y = top + step * (k + 0.5)
        strong = " strong" if row.strong else ""
        canvas.text(left - 9, y + 4, cut(row.label), f"name end{strong}")
        canvas.add(f'<g class="series {_colour(row.colour)}">')
        if bars:
            width = max(1.5, px(row.value) - left)
            canvas.add(
                f'<rect class="bar" x="{left:.1f}" y="{y - 8:.1f}" width="{width:.1f}" '
                f'height="16" rx="2" data-tip="{escape(f"{row.label}: {unit.value(row.value)}")}"/>'
            )
        else:
            canvas.line(left, y, px(row.value), y, "stem")
            for part in row.parts if len(row.parts) > 1 else ():
                canvas.line(px(part), y - 6, px(part), y + 6, "part")
            canvas.add(
                _marker(row.colour, px(row.value), y, f"{row.label}: {unit.value(row.value)}", 5)
            )
        canvas.add("</g>")
        far = max([row.value, *row.parts])
        canvas.text(px(far) + 10, y + 4, unit.value(row.value), f"value{strong}")
    return canvas.done(label)


def interval_chart(label: str, rows: Sequence[Interval], x_label: str, unit: Unit) -> Markup:
    """Rows with the middle half, the middle nine tenths and the median of a distribution."""
    step, top, bottom = 29.0, 10.0, 40.0
    height = top + step * len(rows) + bottom
    left = min(185.0, 16 + 7.6 * max(len(cut(row.label)) for row in rows))
    right = 52.0
    canvas = _Canvas(WIDTH, height)
    high = max(row.quantiles[-1] for row in rows) * 1.04

    def px(value: float) -> float:
        return left + value / high * (WIDTH - left - right)

    for tick in ticks(0, high, 4):
        canvas.line(px(tick), top, px(tick), height - bottom, "zero" if tick == 0 else "grid")
        canvas.text(px(tick), height - bottom + 16, unit.tick(tick), "tick middle")
    canvas.below((left + WIDTH - right) / 2, height - 6, x_label)
    for k, row in enumerate(rows):
        y = top + step * (k + 0.5)
        low, first, middle, third, most = row.quantiles
        strong = " strong" if row.strong else ""
        canvas.text(left - 9, y + 4, cut(row.label), f"name end{strong}")
        tip = (
            f"{row.label}: median {unit.value(middle)}, "
            f"middle half {unit.value(first)} to {unit.value(third)}, "
            f"nine tenths {unit.value(low)} to {unit.value(most)}"
        )
        canvas.add(f'<g class="series {_colour(row.colour)}" data-tip="{escape(tip)}">')
        canvas.line(px(low), y, px(most), y, "thin")
        canvas.line(px(first), y, px(third), y, "thick")
        canvas.add(f'<circle class="median" cx="{px(middle):.1f}" cy="{y:.1f}" r="4.6"/></g>')
        canvas.text(px(most) + 8, y + 4, unit.value(middle), f"value{strong}")
    return canvas.done(label)


def heat_map(
    label: str, matrix: Sequence[Sequence[float]], x_label: str, y_label: str, most: float = 1.0
) -> Markup:
    """A matrix as squares: the stronger the colour, the farther from 0; two colours for the signs.

    Parameters
    ----------
    label : str
    matrix : Sequence[Sequence[float]]
        Rows of equal length, at least one.
    x_label, y_label : str
    most : float
        What is drawn in full colour.
    """
    left, top, bottom = 40.0, 24.0, 40.0
    side = (WIDTH - left - 10) / len(matrix[0])
    canvas = _Canvas(WIDTH, top + side * len(matrix) + bottom)
    canvas.text(4, 14, y_label, "axis")
    for row, values in enumerate(matrix):
        y = top + side * row
        if row % 5 == 4 or not row:
            canvas.text(left - 7, y + side / 2 + 4, str(row + 1), "tick end")
        for column, value in enumerate(values):
            tip = escape(f"{row + 1}, {column + 1}: {value:.2f}")
            canvas.add(
                f'<g class="series {_colour(1 if value > 0 else 0)}"><rect class="bar" '
                f'x="{left + side * column:.1f}" y="{y:.1f}" width="{side:.1f}" '
                f'height="{side:.1f}" fill-opacity="{min(1.0, abs(value) / most):.2f}" '
                f'data-tip="{tip}"/></g>'
            )
    canvas.below((left + WIDTH) / 2, canvas.height - 8, x_label)
    return canvas.done(label)


def radar(
    label: str,
    spokes: Sequence[str],
    series: Sequence[tuple[str, Sequence[float]]],
    unit: Unit = PER_CENT,
) -> Markup:
    """Values between 0 and 1 on spokes around a centre, one closed line for each series.

    Parameters
    ----------
    label : str
    spokes : Sequence[str]
        Names of at least three values.
    series : Sequence[tuple[str, Sequence[float]]]
        A name, and its values by spoke; what lies outside 0 and 1 is drawn at the end.
    unit : Unit
    """
    x0, y0, reach, row = WIDTH / 2, 142.0, 104.0, 17.0
    canvas = _Canvas(WIDTH, y0 + reach + 44 + row * len(series))

    def at(spoke: int, value: float) -> tuple[float, float]:
        turn = 2 * math.pi * spoke / len(spokes)
        far = reach * min(max(value, 0.0), 1.0)
        return x0 + far * math.sin(turn), y0 - far * math.cos(turn)

    def closed(points: Sequence[tuple[float, float]]) -> str:
        return f"M{'L'.join(f'{x:.1f} {y:.1f}' for x, y in points)}z"

    for ring in (0.25, 0.5, 0.75, 1.0):
        path = closed([at(spoke, ring) for spoke in range(len(spokes))])
        canvas.add(f'<path class="grid" fill="none" d="{path}"/>')
        canvas.text(x0 + 4, at(0, ring)[1] + 11, unit.tick(ring), "tick")
    for spoke, name in enumerate(spokes):
        (x, y), away = at(spoke, 1), at(spoke, 1)[0] - x0
        canvas.line(x0, y0, x, y, "grid")
        side = "middle" if abs(away) < 1 else ("" if away > 0 else "end")
        lower = -8 if y < y0 - reach / 2 else 14 if y > y0 + reach / 2 else 4
        canvas.text(x + math.copysign(8, away) * (abs(away) >= 1), y + lower, name, f"axis {side}")
    for k, (name, values) in enumerate(series):
        points = [at(spoke, value) for spoke, value in enumerate(values)]
        canvas.add(f'<g class="series {_colour(k)}"><path class="line" d="{closed(points)}"/>')
        for (x, y), of, value in zip(points, spokes, values, strict=True):
            canvas.add(_marker(k, x, y, f"{name} · {of}: {unit.value(value)}"))
        y = y0 + reach + 40 + row * k
        canvas.add(_marker(k, 24, y - 4, name))
        canvas.text(36, y, name, "name")
        canvas.add("</g>")
    return canvas.done(label)


MAP = 640
"""Width and height of the map of embeddings."""


def dots(points: Sequence[tuple[int, int]]) -> str:
    """Path of zero-length strokes, which round caps turn into dots."""
    return "".join(f"M{x} {y}h0" for x, y in points)


def embedding_map(
    label: str, warm: Sequence[tuple[int, int]], cold: Sequence[tuple[int, int]], kind: str = ""
) -> Markup:
    """Warm and generated cold items in two dimensions; the page's script moves the points."""
    canvas = _Canvas(MAP, MAP)
    canvas.add(f'<rect class="frame" x="1" y="1" width="{MAP - 2}" height="{MAP - 2}" rx="6"/>')
    canvas.add(f'<path class="dots warm" d="{dots(warm)}"/>')
    canvas.add(f'<path class="dots cold" d="{dots(cold)}"/>')
    if not kind:
        canvas.text(MAP / 2, MAP - 14, "first principal component →", "axis middle")
        turn = f'transform="rotate(-90 24 {MAP / 2})"'
        canvas.text(24, MAP / 2, "second principal component →", "axis middle", turn)
    return canvas.done(label)


def _reach(series: Sequence[Series]) -> tuple[float, float]:
    """Lowest and highest place of lines with their whiskers."""
    values = [
        y + side * spread
        for line in series
        for (_, y), spread in zip(line.points, line.spread or [0.0] * len(line.points), strict=True)
        for side in (-1, 1)
    ]
    return min(values), max(values)


def _whole_ticks(low: float, high: float) -> list[float]:
    marks = [tick for tick in ticks(low, high, 5) if tick == int(tick)]
    return marks if len(marks) > 1 else sorted({low, high})


def _colour(colour: int | None) -> str:
    return "other" if colour is None else f"s{colour % COLOURS}"


def _marker(
    colour: int | None, x: float, y: float, tip: str, size: float = 3.6, quiet: bool = False
) -> str:
    """A mark whose shape tells the series too."""
    said = f'class="mark{" quiet" if quiet else ""}" data-tip="{escape(tip)}"'
    match -1 if colour is None else colour % COLOURS:
        case 1:
            return (
                f'<rect {said} x="{x - size:.1f}" y="{y - size:.1f}" '
                f'width="{2 * size:.1f}" height="{2 * size:.1f}"/>'
            )
        case 2:
            r = size * 1.4
            return f'<path {said} d="M{x:.1f} {y - r:.1f}l{r:.1f} {r:.1f}l-{r:.1f} {r:.1f}l-{r:.1f} -{r:.1f}z"/>'  # noqa: E501
        case 3:
            r = size * 1.3
            return f'<path {said} d="M{x:.1f} {y - r:.1f}l{r:.1f} {1.8 * r:.1f}h-{2 * r:.1f}z"/>'
        case 4:
            r = size * 1.3
            return f'<path {said} d="M{x:.1f} {y + r:.1f}l{r:.1f} -{1.8 * r:.1f}h-{2 * r:.1f}z"/>'
        case 5:
            return (
                f'<circle {said} style="fill:var(--paper)" cx="{x:.1f}" cy="{y:.1f}" r="{size}"/>'
            )
        case _:
            return f'<circle {said} cx="{x:.1f}" cy="{y:.1f}" r="{size}"/>'


def _spread_labels(wanted: Sequence[tuple[float, int]], top: float) -> dict[int, float]:
    """Heights near the wanted ones at which labels do not overlap."""
    gap = 15.0
    placed: list[tuple[float, int]] = []
    for y, key in sorted(wanted):
        placed.append((max(y, placed[-1][0] + gap) if placed else max(y, top), key))
    low = 234.0
    for k in range(len(placed) - 1, -1, -1):
        y = min(placed[k][0], low)
        placed[k] = (y, placed[k][1])
        low = y - gap
    return {key: y for y, key in placed}
