"""The ClientApp: passes each message to the node, and lets only sums leave it.

The one exception is synthetic users, where a node's owner chose to send some.
"""

import logging
import resource
import sys
from collections.abc import Callable

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from client_app import tasks
from client_app.interactions import NodeInteractions
from client_app.node import CatalogueMissingError, Node
from client_app.ranking import evaluate
from client_app.recommend import recommend
from common import messages
from common.catalogue import COLD_SPLITS, ItemIndex
from common.errors import OverflowedError, SnowdropError
from common.users.ragged import Ragged, merged

log = logging.getLogger("snowdrop.node")
app = ClientApp()


def _guarded(handle: Callable[[Node, RecordDict], RecordDict]) -> Callable[..., Message]:
    """Answer every failure with a fixed sentence, since an exception's text could hold an id."""

    def handler(message: Message, context: Context) -> Message:
        try:
            return Message(handle(Node(context), message.content), reply_to=message)
        except CatalogueMissingError:
            return Message(messages.status_record(messages.NEEDS_CATALOGUE), reply_to=message)
        except SnowdropError as error:
            print(f"snowdrop node: {error}", file=sys.stderr)
            overflowed = isinstance(error, OverflowedError)
            return _refusal(
                message, "a refusal", messages.OVERFLOWED if overflowed else messages.REFUSED
            )
        except Exception:
            log.exception("%s failed on this node", message.metadata.message_type)
            return _refusal(message, "an error", messages.REFUSED)

    return handler


def _refusal(message: Message, kind: str, code: int) -> Message:
    reason = f"{message.metadata.message_type} ended in {kind}; the node's log says why"
    return Message(Error(code=code, reason=reason), reply_to=message)


@app.query("catalogue")
@_guarded
def keep_catalogue(node: Node, record: RecordDict) -> RecordDict:
    """Keep the announced item ids and splits."""
    node.store.save_index(messages.CatalogueNotice.from_record(record).index())
    return messages.status_record(messages.KEPT)


@app.query("describe")
@_guarded
def describe(node: Node, record: RecordDict) -> RecordDict:
    """Counts of this node's data."""
    _, data = node.interactions(messages.DescribeRequest.from_record(record).catalogue)
    return messages.DescribeAnswer(
        users=len(data.users),
        users_without_warm=data.users_without_warm,
        unknown=data.unknown,
        peak_rss_mb=peak_rss_mb(),
        order=data.order,
        **{split: len(data.by_split[split].items) for split in ("warm", *COLD_SPLITS)},
    ).to_record()


@app.query("count")
@_guarded
def count_users(node: Node, record: RecordDict) -> RecordDict:
    """How many of this node's users have interacted with each cold item of the test split."""
    index, data = node.interactions(messages.CountRequest.from_record(record).catalogue)
    items = data.by_split["test"].items
    counts = np.bincount(items, minlength=len(index.rows("test"))).astype(np.int64)
    return messages.CountAnswer(counts).to_record()


@app.train()
@_guarded
def train(node: Node, record: RecordDict) -> RecordDict:
    """Train every user of this node for one round."""
    return node.train(messages.TrainRequest.from_record(record)).to_record()


@app.train("heads")
@_guarded
def fit_heads(node: Node, record: RecordDict) -> RecordDict:
    """Fit the heads of users that train in no round to the item table that came of the others."""
    return node.fit_heads(messages.HeadsRequest.from_record(record)).to_record()


@app.query("synthetic")
@_guarded
def send_synthetic(node: Node, record: RecordDict) -> RecordDict:
    """How this node answers a training, and its synthetic users where its owner sends some."""
    return node.synthetic(messages.SyntheticRequest.from_record(record)).to_record()


@app.evaluate()
@_guarded
def evaluate_split(node: Node, record: RecordDict) -> RecordDict:
    """Rank a split's items for every user that has some to find; sums go back."""
    request = messages.EvaluateRequest.from_record(record)
    index, data = node.interactions(request.catalogue)
    if request.split not in COLD_SPLITS:
        raise SnowdropError(f"the split {request.split!r} cannot be measured")
    ranking = tasks.ranking(request.task, request.split, index, data, node.keys(data))
    users, sums = evaluate(ranking, node.scorer(request, index, data, ranking.items))
    return messages.EvaluateAnswer(users, list(sums), list(sums.values())).to_record()


@app.query("recommend")
@_guarded
def recommend_new(node: Node, record: RecordDict) -> RecordDict:
    """Rank new items for every user; the lists stay here."""
    request = messages.RecommendRequest.from_record(record)
    index, data = node.interactions(request.catalogue)
    ids = [item for split in COLD_SPLITS for item in index.ids_of(split)]
    seen = None if node.settings.simulated else _seen(index, data)
    scorer = node.scorer(request, index, data, len(ids))
    served = recommend(data, scorer, ids, request.top, node.settings.state_dir, seen)
    return messages.RecommendAnswer(served).to_record()


def _seen(index: ItemIndex, data: NodeInteractions) -> Ragged:
    """Rows, in the table of all cold items, of those that each user has interacted with."""
    first, second = (data.by_split[split] for split in COLD_SPLITS)
    shifted = second.items + len(index.rows(COLD_SPLITS[0]))
    return merged([first, Ragged(second.offsets, shifted)])


def peak_rss_mb() -> float:
    """Most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
