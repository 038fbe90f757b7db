"""Kernel profile: nodes get whitened features, and how sharply to compare with them."""

from collections.abc import Sequence

import numpy as np

from common.methods.kernel_profile import KernelProfileSettings
from server_app import kernels
from server_app.methods.base import Rule, Scoring


class KernelProfile(Rule[KernelProfileSettings]):
    """Needs no training; the features are fitted on the warm items."""

    def scoring(self, splits: Sequence[str]) -> Scoring:
        own, rows = self.own, self.world.rows("warm")
        text = self.world.modality("text").numpy()
        unit = kernels.half_whitened(text, rows, own.dim, own.whitening)
        return Scoring(
            "kernel",
            {
                "warm": unit[rows],
                "items": unit[self.world.rows(splits)],
                "sharpness": np.array([[own.sharpness]], np.float32),
            },
        )
