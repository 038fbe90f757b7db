"""`snowdrop attack membership`: whether a user interacted with an item."""

import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.attack.options import (
    Data,
    Out,
    PolicyFile,
    Rounds,
    Set,
    folder_of,
    noted,
    settings_given,
    sizes_of,
    world_for,
)
from cli.attack.output import FORMAT, publish

if TYPE_CHECKING:
    import numpy as np

    from cli.attack.federation import Federation
    from client_app.synthesis.attacks import Roc
    from server_app.methods.base import World

RANKINGS = 100
"""Crafted rankings whose metrics are asked for."""
UPDATES, METRICS, TABLE, TEXTS = "updates", "metrics of crafted rankings", "cold table", "texts"
CALIBRATED = "cold table, against one without these users"
BOUNDED = {UPDATES, CALIBRATED}
"""Attacks on what carries noise, without what texts tell of a taste."""


def membership(
    data: Data,
    users_per_node: Annotated[
        str, typer.Option(help="users of a node, comma-separated: one federation for each number")
    ] = "1,10,100",
    users: Annotated[
        int,
        typer.Option(
            min=2, help="users who take part; as many others make a table to compare with"
        ),
    ] = 100,
    rounds: Rounds = None,
    set_: Set = None,
    policy: PolicyFile = None,
    out: Out = None,
) -> None:
    """Guess whether a user interacted with an item, against items of equal popularity."""
    sizes = sizes_of(users_per_node, users)
    folder = folder_of(out, "membership", data)
    values = {**settings_given(set_), "data": data}

    from cli.attack.guessing import as_json, bound_of
    from cli.attack.membership_page import HEAD, page, rows_of

    rows: list[dict[str, Any]] = []
    curves: list[tuple[str, Roc]] = []
    with tempfile.TemporaryDirectory(prefix="snowdrop-attack-") as scratch:
        world, rounds = world_for(values, rounds, policy, Path(scratch))
        for size, attack, found, told in _attacked(world, users, sizes, rounds, Path(scratch)):
            measured = {} if found is None else as_json(found)
            bound = (
                bound_of(world.settings, rounds, attack == UPDATES) if attack in BOUNDED else None
            )
            rows.append({
                "users_per_node": size, "attack": attack, "told": told, "bound": bound, **measured,
            })  # fmt: skip
            if found is not None:
                curves.append((attack if size is None else f"{attack}, {size}", found))
    told_all = {
        "format": FORMAT,
        "attack": "membership",
        "data": Path(data).name,
        "seed": world.settings.seed,
        "method": world.settings.title(),
        "rounds": rounds,
        "users": users,
        "policy": policy is not None,
        "settings": dict(noted(world.settings)),
        "rows": rows,
    }
    made = f"{datetime.now():%-d %B %Y}"
    publish(folder, told_all, page(told_all, curves, made), HEAD, rows_of(told_all))


def _attacked(
    world: "World", users: int, sizes: Sequence[int], rounds: int, folder: Path
) -> "Iterator[tuple[int | None, str, Roc | None, str]]":
    """Users on a node, the attack, its curve, and why there is none."""
    from cli.attack.federation import Federation, users_of

    frame, everybody = users_of(world.settings, world, 2 * users)
    drawn, others = everybody[:users], everybody[users:]
    last = None
    for size in sizes:
        last = Federation(world, frame, drawn, size, folder / f"of-{size}")
        last.train(rounds)
        yield size, UPDATES, *_by_updates(last)
        yield size, METRICS, *_by_metrics(last)
    assert last is not None
    reference = Federation(world, frame, others, last.size, folder / "reference")
    reference.train(rounds)
    for attack, found, told in _by_table(last, reference):
        yield None, attack, found, told


def _by_updates(federation: "Federation") -> "tuple[Roc | None, str]":
    import numpy as np

    from cli.attack.guessing import judged, pairs_of, scores_of_updates
    from cli.attack.seen import by_source

    if not federation.seen:
        return None, federation.refused
    warm, seed = len(federation.training.index.rows("warm")), federation.settings.seed
    seen, truth = by_source(federation.seen), federation.seen_truth()
    histories = [own for people in truth.values() for own in people]
    sources = [source for source, people in truth.items() for _ in people]
    pairs = pairs_of(histories, warm, seed)
    scores = np.zeros(len(pairs.users))
    for user in np.unique(pairs.users):
        own = pairs.users == user
        rounds = seen.get(sources[user], [])
        found = scores_of_updates(rounds, warm, pairs.known[user])
        scores[own] = found[pairs.items[own]]
    return judged(scores, pairs, seed), ""


def _by_metrics(federation: "Federation") -> "tuple[Roc | None, str]":
    """Cold test items, from metrics of rankings that are the same for all users of a sum."""
    import numpy as np

    from cli.attack.federation import quietly
    from cli.attack.guessing import judged, pairs_of, shares_of_rankings
    from common import messages
    from common.metrics import metric_names
    from common.settings import KS
    from server_app import masked
    from server_app.nodes import Nodes

    training, seed = federation.training, federation.settings.seed
    index = training.index
    cold, warm = len(index.rows("test")), len(index.rows("warm"))
    truth = federation.seen_truth("test")
    pairs = pairs_of([own for people in truth.values() for own in people], cold, seed, False)
    if not len(pairs.users):
        return None, "nobody has interacted with a test item"
    rng = np.random.default_rng(seed)
    places = np.argsort(np.argsort(rng.random((RANKINGS, cold)), axis=1), axis=1)
    rankings = [_ranking(place, warm, training.settings.card.name) for place in places]
    request = messages.EvaluateRequest.of(
        {
            "catalogue": index.version,
            "training": training.id,
            "round": training.round,
            "settings": training.settings.pack(),
            "task": training.settings.task,
        },
        rankings,
    )
    settings, names = federation.settings, metric_names(KS)
    nodes = Nodes(federation.grid, index, settings.round_timeout)
    asked = nodes.to_all(messages.EVALUATE, request.to_record())
    with quietly():
        replies = masked.replies(nodes, asked, masked.of_metrics([1] * RANKINGS, names), settings)
    if not replies:
        return None, federation.grid.refusal or "the secure sum of this evaluate came to nothing"
    columns = [names.index(f"recall@{cut}") for cut in KS]
    shares = []
    for reply, people in zip(replies, truth.values(), strict=True):
        if reply.has_error():
            return None, federation.grid.refusal
        answer = messages.EvaluateAnswer.from_record(reply.content)
        sums = np.array(answer.sums).reshape(RANKINGS, -1)[:, columns]
        shares += [shares_of_rankings(places, sums, KS)] * len(people)
    scores = np.stack(shares)[pairs.users, pairs.items]
    return judged(scores, pairs, seed), ""


def _ranking(places: "np.ndarray", warm: int, method: str) -> Any:
    """A ranking by the kernel of a user's history, where all warm items are one and the same."""
    import numpy as np

    from common.messages import Ranked

    angles = np.pi / 2 * (places + 1) / (len(places) + 1)
    one = np.tile(np.array([1, 0], np.float32), (warm, 1))
    items = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    arrays = {"warm": one, "items": items, "sharpness": np.ones((1, 1), np.float32)}
    return Ranked("test", "kernel", method, arrays)


def _by_table(
    federation: "Federation", reference: "Federation"
) -> "Iterator[tuple[str, Roc | None, str]]":
    """Warm items, from the released embeddings of cold items and the items' features."""
    from cli.attack.guessing import carried_over, judged, pairs_of, scores_of_table
    from server_app.methods.table import ItemTable

    table, other = federation.training.method, reference.training.method
    if not isinstance(table, ItemTable) or not isinstance(other, ItemTable):
        yield TABLE, None, "this method releases no embeddings of cold items"
        return
    if federation.refused or reference.refused:
        yield TABLE, None, federation.refused or reference.refused
        return
    seed = federation.settings.seed
    world = federation.training.world
    features = table.features.numpy().astype("float64")
    cold, warm = features[world.rows(["validation", "test"])], features[world.rows("warm")]
    truth = federation.truth()
    pairs = pairs_of([own for people in truth.values() for own in people], len(warm), seed)
    scores = {}
    for name, one in ((TABLE, table), (CALIBRATED, other)):
        one.ensure_fitted()
        made = carried_over(one.cold_table(["validation", "test"]).numpy(), cold, warm)
        scores[name] = scores_of_table(made, pairs.known, pairs)
    texts = scores_of_table(warm - warm.mean(0), pairs.known, pairs)
    yield TEXTS, judged(texts, pairs, seed), ""
    yield TABLE, judged(scores[TABLE], pairs, seed), ""
    yield CALIBRATED, judged(scores[TABLE] - scores[CALIBRATED], pairs, seed), ""
