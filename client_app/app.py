"""The ClientApp: passes each message to the node, and lets only sums leave it.

The one exception is synthetic users, where a node's owner chose to send some.
"""

import logging
import resource
import sys
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from client_app import tasks
from client_app.interactions import NodeInteractions
from client_app.node import CatalogueMissingError, Node
from client_app.ranking import evaluate_forms
from client_app.recommend import recommend
from common import messages
from common.catalogue import COLD_SPLITS, ItemIndex
from common.errors import OverflowedError, PolicyError, SnowdropError
from common.metrics import metric_names
from common.settings import KS
from common.users.ragged import Ragged, merged
from common.users.training import participants

log = logging.getLogger("snowdrop.node")
app = ClientApp()

Request = TypeVar("Request", bound=messages.Body)


def _guarded(
    request_type: type[Request],
) -> Callable[[Callable[[Node, Request], RecordDict]], Callable[[Message, Context], Message]]:
    """Read a message, and ask what this node's owner agrees to before an interaction is read.

    Every failure is answered with a fixed sentence, since an exception's text could hold an id.
    """

    def guard(
        handle: Callable[[Node, Request], RecordDict],
    ) -> Callable[[Message, Context], Message]:
        def handler(message: Message, context: Context) -> Message:
            try:
                node = Node(context, message.content)
                request = request_type.from_record(message.content)
                node.agree(message.metadata.message_type, request)
                return Message(handle(node, request), reply_to=message)
            except CatalogueMissingError:
                return Message(messages.status_record(messages.NEEDS_CATALOGUE), reply_to=message)
            except PolicyError as error:
                return _outside_policy(message, error)
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

    return guard


def _refusal(message: Message, kind: str, code: int) -> Message:
    reason = f"{message.metadata.message_type} ended in {kind}; the node's log says why"
    return Message(Error(code=code, reason=reason), reply_to=message)


def _outside_policy(message: Message, error: PolicyError) -> Message:
    kind = message.metadata.message_type
    print(f"snowdrop node: {kind} is outside the policy: {error}", file=sys.stderr)
    reason = f"its owner has not agreed to this {kind}: {error}"
    return Message(Error(code=messages.OUTSIDE_POLICY, reason=reason), reply_to=message)


@app.query("catalogue")
@_guarded(messages.CatalogueNotice)
def keep_catalogue(node: Node, request: messages.CatalogueNotice) -> RecordDict:
    """Keep the announced item ids and splits."""
    node.store.save_index(request.index())
    return messages.status_record(messages.KEPT)


@app.query("describe")
@_guarded(messages.DescribeRequest)
def describe(node: Node, request: messages.DescribeRequest) -> RecordDict:
    """Counts of this node's data."""
    return node.answered(request, lambda: _counts(node, request))


def _counts(node: Node, request: messages.DescribeRequest) -> messages.DescribeAnswer:
    _, data = node.interactions(request.catalogue)
    node.policy.check_users(len(data.users))
    if not request.counts or not node.policy.may_be_bare(messages.QUERY_DESCRIBE):
        return messages.DescribeAnswer(len(data.users), order=data.order)
    return messages.DescribeAnswer(
        users=len(data.users),
        users_without_warm=data.users_without_warm,
        unknown=data.unknown,
        peak_rss_mb=peak_rss_mb(),
        order=data.order,
        **{split: len(data.by_split[split].items) for split in ("warm", *COLD_SPLITS)},
    )


@app.query("count")
@_guarded(messages.CountRequest)
def count_users(node: Node, request: messages.CountRequest) -> RecordDict:
    """How many of this node's users have interacted with each cold item of the test split."""
    return node.answered(request, lambda: _users_of_items(node, request))


def _users_of_items(node: Node, request: messages.CountRequest) -> messages.CountAnswer:
    index, data = node.interactions(request.catalogue)
    node.policy.check_users(len(data.users))
    items = data.by_split["test"].items
    counts = np.bincount(items, minlength=len(index.rows("test"))).astype(np.int64)
    return messages.CountAnswer(counts)


@app.train()
@_guarded(messages.TrainRequest)
def train(node: Node, request: messages.TrainRequest) -> RecordDict:
    """Train every user of this node for one round."""
    return node.answered(request, lambda: node.train(request))


@app.train("heads")
@_guarded(messages.HeadsRequest)
def fit_heads(node: Node, request: messages.HeadsRequest) -> RecordDict:
    """Fit the heads of users that train in no round to the item table that came of the others."""
    return node.fit_heads(request).to_record()


@app.query("synthetic")
@_guarded(messages.SyntheticRequest)
def send_synthetic(node: Node, request: messages.SyntheticRequest) -> RecordDict:
    """How this node answers a training, and its synthetic users where its owner sends some."""
    return node.synthetic(request).to_record()


@app.evaluate()
@_guarded(messages.EvaluateRequest)
def evaluate_splits(node: Node, request: messages.EvaluateRequest) -> RecordDict:
    """Rank splits' items for every user that has some to find, as often as asked; sums go back.

    A ranking that fewer users have items to find in than the policy allows is answered as one of
    nobody; where that leaves none, all is refused.
    """
    return node.answered(request, lambda: _metrics(node, request))


def _metrics(node: Node, request: messages.EvaluateRequest) -> messages.EvaluateAnswer:
    index, data = node.interactions(request.catalogue)
    keys = node.keys(data)
    users: list[int] = []
    sums: list[float] = []
    withheld: PolicyError | None = None
    for ranked in request.rankings():
        if ranked.split not in COLD_SPLITS:
            raise SnowdropError(f"the split {ranked.split!r} cannot be measured")
        ranking = tasks.ranking(request.task, ranked.split, index, data, keys)
        scorer = node.scorer(request, ranked, index, data, ranking.items)
        if scorer.share < 1:
            ranking = ranking.among(participants(keys, request.round, scorer.share))
        count, tried = evaluate_forms(ranking, scorer.forms, ranked.forms)
        found = [value for one in tried for value in one.values()]
        try:
            node.policy.check_users(count)
        except PolicyError as error:
            count, found, withheld = 0, [0.0] * len(found), error
        users.append(count)
        sums += found
    if withheld is not None and not any(users):
        raise withheld
    return messages.EvaluateAnswer(users, metric_names(KS), sums)


@app.query("keys")
@_guarded(messages.KeysRequest)
def join_sum(node: Node, request: messages.KeysRequest) -> RecordDict:
    """New public keys, for a masked sum."""
    return node.sums.join(request).to_record()


@app.query("shares")
@_guarded(messages.SharesRequest)
def share_secrets(node: Node, request: messages.SharesRequest) -> RecordDict:
    """Shares of this node's secrets, for the others of its group in a masked sum."""
    return node.sums.share(request).to_record()


@app.query("confirm")
@_guarded(messages.ConfirmRequest)
def confirm_sum(node: Node, request: messages.ConfirmRequest) -> RecordDict:
    """What this node says to the others of its group about who is in the sum."""
    return node.sums.confirm(request).to_record()


@app.query("unmask")
@_guarded(messages.UnmaskRequest)
def unmask_sum(node: Node, request: messages.UnmaskRequest) -> RecordDict:
    """Shares that take the masks off the sum, and off nothing else."""
    return node.unmasked(request)


@app.query("recommend")
@_guarded(messages.RecommendRequest)
def recommend_new(node: Node, request: messages.RecommendRequest) -> RecordDict:
    """Rank new items for every user; the lists stay here."""
    index, data = node.interactions(request.catalogue)
    ids = [item for split in COLD_SPLITS for item in index.ids_of(split)]
    seen = None if node.settings.simulated else _seen(index, data)
    scorer = node.scorer(request, request, index, data, len(ids))
    served = recommend(data, scorer, ids, request.top, node.settings.state_dir, seen)
    node.check_withdrawn()
    return messages.RecommendAnswer(served).to_record()


def _seen(index: ItemIndex, data: NodeInteractions) -> Ragged:
    """Rows, in the table of all cold items, of those that each user has interacted with."""
    first, second = (data.by_split[split] for split in COLD_SPLITS)
    shifted = second.items + len(index.rows(COLD_SPLITS[0]))
    return merged([first, Ragged(second.offsets, shifted)])


def peak_rss_mb() -> float:
    """Most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
