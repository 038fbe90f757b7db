"""What this node's users have spent: ε of all answers so far, kept on the node's disk.

It is written before an answer is made, so that a process that dies has spent too much rather than
too little. No message can reset it, whatever training it names.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from client_app.policy import Policy, refusal
from common.durable import check_format, exclusively, make_folder, read_checked, write_checked
from common.errors import SnowdropError
from common.privacy import NOTHING, Cost

FILE = "ledger.json"

FORMAT = 1


@dataclass(frozen=True)
class Spent:
    """What stands in the ledger.

    Parameters
    ----------
    cost : Cost
        Of all rounds. Each counts for all users, whether they were drawn for it or not.
    rounds : int
        Answers that carried noise; a round that the server repeats counts again.
    sets : dict[str, float]
        ε of each set of synthetic users that was sent, by its name.
    """

    cost: Cost = NOTHING
    rounds: int = 0
    sets: dict[str, float] = field(default_factory=dict)

    def epsilon(self, delta: float) -> float:
        """ε of everything at a δ; what the makers of synthetic users state is added."""
        return self.cost.epsilon(delta) + sum(self.sets.values())


class Ledger:
    """The file ``ledger.json`` in a node's state folder.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.path = folder, folder / FILE

    def read(self) -> Spent:
        """What was spent so far.

        Raises
        ------
        SnowdropError
            If the file is damaged or of a later release: nothing may be spent then.
        """
        if not self.path.exists():
            return Spent()
        try:
            stored = json.loads(read_checked(self.path))
            check_format(self.path, stored["format"], FORMAT)
            cost = Cost(float(stored["pure"]), float(stored["gaussian"]))
            return Spent(cost, int(stored["rounds"]), dict(stored["sets"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SnowdropError(f"{self.path} is damaged; restore it from a back-up") from error

    def spend(self, cost: Cost, policy: Policy) -> None:
        """Write down a round's cost, before the round is answered.

        Raises
        ------
        PolicyError
            If the total would exceed what the policy allows; nothing is spent then.
        SnowdropError
            If the ledger cannot be read or written.
        """
        with self._locked() as spent:
            after = replace(spent, cost=spent.cost + cost, rounds=spent.rounds + 1)
            self._write(after, policy)

    def spend_set(self, name: str, epsilon: float | None, policy: Policy) -> None:
        """Write down that a set of synthetic users is sent; the same set costs nothing again.

        Parameters
        ----------
        name : str
        epsilon : float or None
            As its maker states it; None where it states none.
        policy : Policy

        Raises
        ------
        PolicyError
            As for `spend`, or if no ε is stated and the policy limits it.
        """
        with self._locked() as spent:
            if name in spent.sets:
                return
            if epsilon is None:
                if not policy.may_be_bare("query.synthetic"):
                    raise refusal("without_noise")
                return
            self._write(replace(spent, sets={**spent.sets, name: epsilon}), policy)

    def _write(self, after: Spent, policy: Policy) -> None:
        if math.isfinite(policy.epsilon_total) and after.epsilon(policy.delta) > (
            policy.epsilon_total
        ):
            raise refusal("epsilon_total")
        content = {
            "format": FORMAT,
            "pure": after.cost.pure,
            "gaussian": after.cost.gaussian,
            "rounds": after.rounds,
            "sets": after.sets,
        }
        write_checked(self.path, json.dumps(content).encode())

    @contextmanager
    def _locked(self) -> Iterator[Spent]:
        """What was spent, while no other process of this node can spend."""
        make_folder(self._folder)
        with exclusively(self._folder / "ledger.lock"):
            yield self.read()
