"""What is measured of synthetic users, put together."""

import json

import numpy as np
import pytest
from scipy.sparse import csr_array, vstack

from client_app.synthesis.measured import Measured, People, measure
from client_app.synthesis.similarity import profile
from tests.client_app.synthesis.test_likelihood import with_items
from tests.client_app.synthesis.test_similarity import drawn_users

TRAINED, HELD_OUT = (with_items(drawn_users(n, 30, 0.3, s)) for n, s in ((90, 1), (40, 2)))
MADE = vstack([TRAINED[:50], with_items(drawn_users(50, 30, 0.3, 3))], format="csr")
NOBODY = csr_array((0, 30), dtype=bool)


@pytest.fixture(scope="module")
def told() -> Measured:
    return measure(MADE, People(TRAINED, HELD_OUT), seed=0)


def test_synthetic_users_are_set_against_held_out_ones(told: Measured) -> None:
    assert told.control_held_out
    assert told.synthetic.nearest == pytest.approx(profile(MADE, TRAINED).nearest)
    assert told.control.nearest == pytest.approx(profile(HELD_OUT, TRAINED).nearest)
    assert told.synthetic.table.sum() == MADE.shape[0] * 90
    assert told.fidelity.repeated == 0
    assert sum(told.items_per_user.real) == pytest.approx(1)
    assert sum(told.users_per_item.synthetic) == pytest.approx(1)


def test_every_attack_has_members_and_others(told: Measured) -> None:
    assert set(told.attacks) == {
        "nearest-jaccard", "nearest-cosine", "nearer-than-strangers", "likelihood"
    }  # fmt: skip
    for roc in told.attacks.values():
        assert (roc.members, roc.others) == (90, 40)
    assert told.attacks["nearest-jaccard"].low > 0.5  # half of the members are copied


def test_numbers_are_json_without_nan(told: Measured) -> None:
    content = json.loads(json.dumps(told.as_json(), allow_nan=False))
    assert content["similarity"]["synthetic"]["copies"] == 50
    assert content["similarity"]["synthetic"]["nearest_quantiles"]["0.95"] == 1
    assert content["attacks"]["likelihood"]["members"] == 90
    whole = People(csr_array(np.ones((3, 4), dtype=bool)), csr_array((0, 4), dtype=bool))
    same = measure(whole.trained, whole, seed=0).as_json()
    assert same["fidelity"]["popularity_correlation"] is None
    json.dumps(same, allow_nan=False)


def test_without_held_out_users_the_control_is_the_trained_ones() -> None:
    told = measure(MADE, People(TRAINED, NOBODY), seed=0)
    assert not told.control_held_out
    assert told.attacks == {}
    expected = profile(TRAINED, TRAINED, others=True)
    assert sorted(told.control.nearest) == pytest.approx(sorted(expected.nearest))
    assert told.control.table.tolist() == expected.table.tolist()


def test_among_many_users_some_are_drawn() -> None:
    told = measure(MADE, People(TRAINED, HELD_OUT), seed=0, most=25 * MADE.shape[0])
    assert len(told.synthetic.nearest) == 27  # whom to compare with are 90, not 100
    assert len(told.control.nearest) == 25
    assert told.synthetic.table.sum() == 27 * 90
    roc = told.attacks["nearest-jaccard"]
    assert (roc.members, roc.others) == (25, 25)
    assert set(told.control.nearest) <= set(profile(HELD_OUT, TRAINED).nearest)


def test_what_is_done_is_told() -> None:
    seen: list[tuple[str, float, float]] = []
    measure(MADE, People(TRAINED, HELD_OUT), 0, watch=lambda *now: seen.append(now))
    own = [now for now in seen if now[0] == "measuring"]
    assert own == [("measuring", k, 6) for k in range(7)]
    assert {stage for stage, *_ in seen} == {"measuring", "likelihood attack"}
