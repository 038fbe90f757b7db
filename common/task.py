"""What is ranked for whom, as both sides name it.

'cold-items': for each user, the items of a cold split, none of which any training saw.
'last-warm-item': for each user, the warm items that it has not touched and one that it has, held
out of its training (leave-one-out): the last one to test, the last but one to validate. Until
interactions bring their time, 'last' is drawn for each user from the seed.
"""

from typing import Literal

from common.catalogue import COLD_SPLITS, ItemIndex

Task = Literal["cold-items", "last-warm-item"]


def candidates(task: str, split: str) -> str:
    """The split of the catalogue whose items are ranked when ``split`` is measured."""
    return split if task == "cold-items" else "warm"


def measured_splits(task: str, index: ItemIndex) -> list[str]:
    """What can be measured: 'validation' and 'test', as far as there is something to rank."""
    return [split for split in COLD_SPLITS if len(index.rows(candidates(task, split)))]
