"""What several papers' codes have in common: the training of IFedRec's and MDiffFR's nodes."""

from typing import Any

PUBLISHED_TRAINING: dict[str, Any] = {
    "dim": 64,
    "head_start": "random",
    "batch_size": 256,
    "head_lr": 0.1,
    "item_lr": 8.0,
    "item_lr_per_item": True,
    "average": "users",
    "rounds": 100,
    "encoder": "bert-base-uncased",
    "pooling": "cls",
    "max_tokens": 512,
    "table_start": "random",
    "condition_dim": 64,
}
"""As the published codes of MDiffFR and IFedRec have it; tables of both papers came from them."""

PUBLISHED_NETWORK: dict[str, Any] = {
    "fit_every": 1,
    "refit": False,
    "fit_steps": 0,
    "fit_epochs": 1,
    "lr_decay": "none",
    "condition_noise": 0.0,
}
"""One pass of the server's network over the warm items in every round."""


def in_group(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a method's own group, by their whole names."""
    return {f"{name}.{key}": value for key, value in values.items()}
