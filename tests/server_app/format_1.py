"""Checkpoints as the release before methods had settings of their own wrote them: format 1."""

import io
from pathlib import Path
from typing import Any

import torch

from common.durable import write_checked
from server_app.checkpoint import Checkpoints

SETTINGS: dict[str, Any] = {
    "dim": 8, "head": "linear", "head_start": "zero", "local_epochs": 1, "batch_size": 0,
    "negatives": 5, "head_lr": 2.0, "item_lr": 0.5, "item_lr_per_item": False,
    "average": "touches", "item_pull": 0.0, "fraction": 1.0, "clip_norm": 0.0,
    "laplace_scale": 0.0, "wire_dtype": "float32", "keep_rounds": 4, "seed": 0,
    "preset": "default", "mode": "train", "data": "demo", "run_dir": "", "resume": False,
    "server_device": "cpu", "rounds": 4, "evaluate_every": 2, "nodes": 2, "nodes_timeout": 5.0,
    "nodes_per_round": 0, "round_timeout": 2.0, "max_update_norm": 0.0, "max_node_users": 0,
    "round_retries": 2, "baselines": False, "warm_after": 0, "tensorboard": False, "top": 20,
    "encoder": "themes", "pooling": "mean", "max_tokens": 256, "encode_batch": 64,
    "encode_cache": "", "table_start": "features", "whitening": 0.5, "server_lr": 1.0,
    "generator": "diffusion", "generator_target": "embedding", "generator_every": 2,
    "generator_refit": True, "generator_steps": 0, "generator_epochs": 2,
    "generator_batch": 256, "generator_optimizer": "adamw", "generator_lr": 0.001,
    "generator_lr_decay": "cosine", "generator_weight_decay": 0.001, "condition_dim": 0,
    "condition_noise": 0.5, "condition_dropout": 0.0, "guidance_scale": 1.0,
    "standardise": "global", "mapping_width": 300, "neighbours": 10, "neighbour_share": 0.5,
    "diffusion_steps": 4, "diffusion_schedule": "cosine", "noise_scale": 0.1,
    "noise_min": 0.0001, "noise_max": 0.02, "diffusion_loss": "plain", "sampler": "mean",
    "sampling_steps": 0, "samples": 1, "denoiser": "residual", "denoiser_width": 16,
    "attention_heads": 4, "guidance": "modality", "attention": True,
}  # fmt: skip
"""Every setting of that release, with the small values of `tests.server_app.runs`."""

OF_METHOD: dict[str, dict[str, Any]] = {
    "mdifffr": {"neighbour_share": 0.0},
    "mixture": {},
    "ipfedrec": {
        "generator": "mapping",
        "mapping_width": 16,
        "item_pull": 0.5,
        "neighbour_share": 0.0,
    },
}
"""What made it one of today's methods."""

KEYS = (
    "id", "table", "round", "fitted_round", "best_round", "best_recall", "history", "snapshots",
    "ids", "splits", "settings", "transform", "generator",
)  # fmt: skip
"""What such a checkpoint holds, and no ``format``."""


def as_format_1(state: dict[str, Any], method: str) -> dict[str, Any]:
    """What the release before wrote where today's release writes ``state``."""
    former = {name: state[name] for name in KEYS}
    former["settings"] = SETTINGS | OF_METHOD[method]
    if method == "mixture":
        former["generator"] = state["generator"]["mdifffr"]
    return former


def rewrite(run_dir: Path, method: str) -> None:
    """Turn all checkpoints of a run into those of format 1."""
    checkpoints = Checkpoints(run_dir / "checkpoint", exclusive=False)
    for number in checkpoints.rounds():
        buffer = io.BytesIO()
        torch.save(as_format_1(checkpoints.load(number), method), buffer)
        write_checked(run_dir / "checkpoint" / f"round-{number:06d}.ckpt", buffer.getvalue())
