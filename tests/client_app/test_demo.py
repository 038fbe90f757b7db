"""The generated interactions: what users have in common."""

import numpy as np

from client_app.demo import TASTES, circles, demo_interactions
from common import demo

ITEMS = 480


def themes_of_users(shared: float) -> list[np.ndarray]:
    """How many of a user's items are of each theme."""
    themes = dict(zip(demo.item_ids(ITEMS), demo.item_themes(ITEMS, 0), strict=True))
    frame = demo_interactions(300, ITEMS, 40, 0, shared)
    counts = {user: np.zeros(len(demo.THEMES)) for user in frame["user_id"].unique()}
    for user, item in frame.iter_rows():
        counts[user][themes[item]] += 1
    return list(counts.values())


def in_a_circle(shared: float) -> float:
    """Share of the users whose most frequent themes are one circle."""
    known = {frozenset(circle) for circle in circles(0).tolist()}
    best = [frozenset(np.argsort(-own)[:TASTES].tolist()) for own in themes_of_users(shared)]
    return sum(own in known for own in best) / len(best)


def test_each_theme_goes_together_with_others_once() -> None:
    assert sorted(circles(0).ravel()) == list(range(len(demo.THEMES)))
    assert circles(0).tolist() != circles(1).tolist()


def test_as_many_users_as_are_asked_for_share_their_taste() -> None:
    none, half, everyone = in_a_circle(0.0), in_a_circle(0.5), in_a_circle(1.0)
    assert none < 0.02
    assert 0.35 < half < 0.55
    assert everyone > 0.8


def test_a_user_of_a_circle_likes_any_of_its_themes_best() -> None:
    first = {int(own.argmax()) for own in themes_of_users(1.0)}
    assert len(first) > len(demo.THEMES) * 0.8
