"""This node's synthetic users: read from its owner's folder, or made once in a simulation.

They are the one thing about single users that leaves a node, and only where its owner says so.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from client_app.interactions import arrange
from common.catalogue import ItemIndex
from common.device import one_thread
from common.errors import SnowdropError
from common.methods import Named
from common.settings import NodeSettings, RunSettings
from common.users.ragged import Ragged
from common.users.synthetic import SyntheticUsers

log = logging.getLogger("snowdrop.node")

FOLDER = "synthetic"
"""Folder of a simulated node's synthetic users, in its state folder."""


def synthetic_users(
    node: NodeSettings, run: RunSettings, index: ItemIndex, histories: Callable[[], Ragged]
) -> SyntheticUsers:
    """The synthetic users that this node sends; the same ones whenever it is asked.

    Parameters
    ----------
    node : NodeSettings
    run : RunSettings
        Tells a simulated node what makes them, and how many.
    index : ItemIndex
    histories : Callable
        Warm items of this node's own users, for a simulated node to learn from.

    Raises
    ------
    SnowdropError
        If the owner's folder is missing or does not say that its users are synthetic, none of them
        has a warm item, or a simulated node cannot make any.
    """
    from client_app.synthesis.folder import read_synthetic

    folder = node.synthetic or node.state_dir / FOLDER
    if node.simulated:
        _make(folder, node, run, index, histories)
    made = read_synthetic(folder)
    warm = arrange(made.rows, index).warm
    if not len(warm.counts):
        raise SnowdropError(f"no synthetic user of {folder} has a warm item of the catalogue")
    return SyntheticUsers(made.name, warm, made.epsilon)


def _make(
    folder: Path,
    node: NodeSettings,
    run: RunSettings,
    index: ItemIndex,
    histories: Callable[[], Ragged],
) -> None:
    """Make the users of a simulated node, unless they are there."""
    from scipy.sparse import csr_array

    from client_app.synthesis import synthesizer_of
    from client_app.synthesis.base import is_private
    from client_app.synthesis.folder import read_mark, write_synthetic
    from client_app.synthesis.silo import Silo

    recipe = _recipe(node, run)
    try:
        if read_mark(folder).get("recipe") == recipe:
            return
    except SnowdropError:
        log.info("this node makes its synthetic users")
    own = histories()
    named = Named.parse(run.synthesizer)
    settings = run.group(named.card.name)
    warm = np.array(index.ids_of("warm"), dtype=object)
    columns = np.arange(len(warm)) if is_private(settings) else np.unique(own.items)
    ones = np.ones(len(own.items), dtype=bool)
    places = np.searchsorted(columns, own.items)
    likes = csr_array((ones, places, own.offsets), shape=(len(own.counts), len(columns)))
    maker = synthesizer_of(named.name, settings, len(columns))
    seed = run.seed * 1_000_003 + node.partition
    with one_thread():  # the same users in the process as through Flower
        maker.fit(Silo(likes, likes), seed, folder=folder / "training")
        sample = maker.sample(run.synthetic_users or len(own.counts), seed)
    write_synthetic(
        folder, sample.likes, warm[columns].tolist(), {"epsilon": maker.epsilon, "recipe": recipe}
    )
    shutil.rmtree(folder / "training", ignore_errors=True)


def _recipe(node: NodeSettings, run: RunSettings) -> str:
    """What synthetic users depend on, other ones of which are made anew."""
    own = run.group(Named.parse(run.synthesizer).card.name).model_dump(mode="json")
    told: dict[str, Any] = {
        name: getattr(run, name)
        for name in ("data", "task", "seed", "synthesizer", "synthetic_users")
    }
    return json.dumps([told, own, node.partition, node.partitions], sort_keys=True)
