"""Sending new items out: nodes rank them for their users, and keep the lists."""

import logging
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from common import messages
from common.catalogue import COLD_SPLITS
from common.device import pick_device
from common.errors import SnowdropError
from common.roles import Role
from common.settings import DEMO, RunSettings, names_with
from server_app.checkpoint import Checkpoints
from server_app.items import load_catalogue, world_of
from server_app.measure import packed
from server_app.nodes import Nodes
from server_app.run_folder import RunFolder
from server_app.training import Training, former_index

log = logging.getLogger("snowdrop")


def publish(grid: Grid, settings: RunSettings) -> dict[str, Any]:
    """Recommend the cold items of today's catalogue with the best round of a training.

    Parameters
    ----------
    grid : Grid
    settings : RunSettings
        ``run_dir`` names the training, which tells all settings but those of a run's operation.

    Returns
    -------
    dict
        What ``published.json`` holds.

    Raises
    ------
    SnowdropError
        If there is no training, no new item, or no node, or if the users are generated ones of
        another seed than the training's.
    """
    folder = RunFolder(Path(settings.run_dir))
    state = Checkpoints(folder.path / "checkpoint", exclusive=False).best()
    device = pick_device(settings.server_device)
    if state is None:
        if settings.card.kind == "trained":
            raise SnowdropError(
                f"{folder.path} has no whole checkpoint: train there first, or set run_dir to a "
                "training's"
            )
        rule = Training.begin(world_of(settings, load_catalogue(settings), device))
        return send_out(rule, grid, folder)
    trained = RunSettings.read(state["settings"])
    if settings.data == DEMO and settings.seed != trained.seed:
        raise SnowdropError(
            f"the training in {folder.path} has seed={trained.seed}, and with seed={settings.seed} "
            f"nodes generate other users; give seed={trained.seed}"
        )
    today = {name: getattr(settings, name) for name in names_with(Role.OPERATION)}
    settings = trained.model_copy(update=today)
    catalogue = load_catalogue(settings).grown_from(former_index(state), training=False)
    training = Training.begin(world_of(settings, catalogue, device))
    training.restore(state)
    return send_out(training, grid, folder)


def publish_todays_items(training: Training, nodes: Nodes, grid: Grid, folder: RunFolder) -> int:
    """At the end of a training: users served with what the catalogue holds by now."""
    settings = training.settings
    try:
        if settings.data != DEMO:
            today = load_catalogue(settings).grown_from(training.index, training=False)
            if today.version != training.index.version:
                log.info("the catalogue has changed during the training: publishing it")
                world = world_of(settings, today, training.world.device)
                return int(send_out(training.moved_to(world), grid, folder)["users"])
    except SnowdropError as error:
        log.warning("recommending only the items that the training began with: %s", error)
    return recommend(training, nodes)[0]


def send_out(training: Training, grid: Grid, folder: RunFolder) -> dict[str, Any]:
    """Send all cold items to the nodes that are there, to be recommended.

    Returns
    -------
    dict
        Counts of items, users and nodes, and the round whose state was used; written to the folder.

    Raises
    ------
    SnowdropError
        If no item is cold, or no node served anybody.
    """
    settings, index = training.settings, training.index
    if not settings.card.ranks_new_items:
        raise SnowdropError(f"the method {settings.card.name} ranks no new items to publish")
    items = sum(len(index.rows(split)) for split in COLD_SPLITS)
    if not items:
        raise SnowdropError("every item is warm: there is no new item to publish")
    nodes = Nodes(grid, index, settings.round_timeout)
    nodes.wait(settings.nodes, settings.nodes_timeout, at_least=1)
    training.method.ensure_fitted()
    users, served = recommend(training, nodes)
    folder.write_answered(nodes.monitored.answered)
    if not served:
        raise SnowdropError("no node took the new items; the warnings above say why")
    log.info("%d new items are recommended to %d users on %d nodes", items, users, served)
    published = {"items": items, "users": users, "nodes": served, "round": training.round}
    folder.write_published(published)
    return published


def recommend(training: Training, nodes: Nodes) -> tuple[int, int]:
    """Have the nodes rank the cold items: users served, and nodes that served them."""
    settings, index = training.settings, training.index
    if not any(len(index.rows(split)) for split in COLD_SPLITS):
        return 0, 0
    if not settings.card.ranks_new_items:
        log.info("the method %s ranks no new items: none is recommended", settings.card.name)
        return 0, 0
    scoring = training.method.scoring(COLD_SPLITS)
    request = messages.RecommendRequest(
        catalogue=index.version,
        training=training.id,
        round=training.round,
        settings=settings.pack(),
        top=settings.top,
        scorer=scoring.scorer,
        method=scoring.method or settings.card.name,
        arrays=packed(scoring.arrays, settings),
    )
    kind = messages.QUERY_RECOMMEND
    answers = nodes.ask(kind, request.to_record(), messages.RecommendAnswer)
    return sum(answer.users for _, answer in answers), len(answers)
