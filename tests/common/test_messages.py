from dataclasses import MISSING, fields, replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array

from common import messages
from common.catalogue import ItemIndex
from common.errors import SnowdropError
from common.settings import RunSettings, TrainingSettings

TABLE = np.arange(6, dtype=np.float32).reshape(3, 2)
HEADER: dict[str, Any] = {"catalogue": "v", "training": "ab" * 8, "round": 2}
SETTINGS = messages.pack_settings(RunSettings().training())

BODIES: list[messages.Body] = [
    messages.CatalogueNotice(["ä", "b"], ["warm", "test"]),
    messages.DescribeRequest("v"),
    messages.DescribeAnswer(1, 2, 3, 4, 5, 6, 7.5),
    messages.TrainRequest(**HEADER, best_round=1, settings=SETTINGS, table=TABLE),
    messages.TrainAnswer(3, 1.5, TABLE, np.array([1, 2, 3])),
    messages.TrainAnswer(3, 1.5, TABLE),
    messages.EvaluateRequest(
        **HEADER, settings=SETTINGS, split="test", scorer="content-profile", cold=TABLE, warm=TABLE
    ),
    messages.EvaluateRequest(**HEADER, settings=SETTINGS, split="test", scorer="random"),
    messages.EvaluateAnswer(2, ["recall@20"], [0.5]),
    messages.TrainAnswer(3, 1.5, TABLE.astype(np.float16), scale=2.5),
    messages.CountRequest("v"),
    messages.CountAnswer(np.array([4, 1, 0])),
    messages.RecommendRequest(**HEADER, settings=SETTINGS, top=5, cold=TABLE.T),
    messages.RecommendAnswer(7),
]
REQUIRED = [
    (body, field.name)
    for body in BODIES
    for field in fields(body)
    if field.default is MISSING and field.default_factory is MISSING
]


def name_of(value: object) -> str:
    return value if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize("body", BODIES, ids=name_of)
def test_round_trip(body: messages.Body) -> None:
    back = type(body).from_record(body.to_record())
    for field in fields(body):
        sent, came = getattr(body, field.name), getattr(back, field.name)
        if isinstance(sent, np.ndarray):
            assert came.dtype == sent.dtype
            np.testing.assert_array_equal(came, sent)
        else:
            assert came == sent


@pytest.mark.parametrize(("body", "name"), REQUIRED, ids=name_of)
def test_a_missing_field_is_malformed(body: messages.Body, name: str) -> None:
    record = body.to_record()
    part = record["arrays" if isinstance(getattr(body, name), np.ndarray) else "values"]
    del part[name]
    with pytest.raises(SnowdropError, match=f"malformed {type(body).__name__}"):
        type(body).from_record(record)


def test_an_unknown_field_is_malformed() -> None:
    record = messages.RecommendAnswer(7).to_record()
    record.config_records["values"]["more"] = 1
    with pytest.raises(SnowdropError, match="malformed RecommendAnswer"):
        messages.RecommendAnswer.from_record(record)


def test_an_unreadable_array_is_malformed() -> None:
    record = messages.TrainAnswer(1, 1.0, TABLE).to_record()
    junk = Array(dtype="float32", shape=(3, 2), stype="numpy.ndarray", data=b"junk")
    record.array_records["arrays"]["change"] = junk
    with pytest.raises(SnowdropError, match="malformed TrainAnswer"):
        messages.TrainAnswer.from_record(record)


def test_a_status_is_no_answer() -> None:
    record = messages.status_record(messages.NEEDS_CATALOGUE)
    assert messages.status_of(record) == messages.NEEDS_CATALOGUE
    assert messages.status_of(messages.RecommendAnswer(1).to_record()) is None
    with pytest.raises(SnowdropError):
        messages.RecommendAnswer.from_record(record)


def test_settings_travel() -> None:
    training = RunSettings.parse({"dim": 7, "head": "dot", "fraction": 0.3}).training()
    request = messages.TrainRequest(
        **HEADER, best_round=0, settings=messages.pack_settings(training), table=TABLE
    )
    assert request.training_settings() == training
    with pytest.raises(ValueError, match="other"):
        replace(request, settings='{"other": 1}').training_settings()


def test_the_catalogue_notice_keeps_the_version() -> None:
    index = ItemIndex(("a", "b"), ("warm", "test"))
    record = messages.CatalogueNotice.of(index).to_record()
    assert messages.CatalogueNotice.from_record(record).index().version == index.version


HALF = RunSettings(wire_dtype="float16").training()
WHOLE = RunSettings().training()


def test_tables_travel_as_the_settings_say() -> None:
    assert messages.for_wire(TABLE, WHOLE) is TABLE
    packed = messages.for_wire(TABLE, HALF)
    assert packed.dtype == np.float16
    np.testing.assert_array_equal(packed, TABLE)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("settings", [WHOLE, HALF], ids=["float32", "float16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_does_not_travel(settings: TrainingSettings, bad: float) -> None:
    table = TABLE.copy()
    table[1, 1] = bad
    for pack in (messages.for_wire, messages.for_wire_scaled):
        with pytest.raises(SnowdropError, match="NaN or Inf"):
            pack(table, settings)


@pytest.mark.filterwarnings("error")
def test_what_float16_cannot_hold_is_told() -> None:
    with pytest.raises(SnowdropError, match=r"up to 7e\+04, too large for wire_dtype = float16"):
        messages.for_wire(np.full((2, 2), -70_000, np.float32), HALF)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e-42, 1e-20, 1.0, 1e5, 3e38])
def test_a_change_of_any_size_travels_in_float16(size: float) -> None:
    table = (np.random.default_rng(0).uniform(-1, 1, (20, 4)) * size).astype(np.float32)
    packed, scale = messages.for_wire_scaled(table, HALF)
    assert packed.dtype == np.float16
    assert 0 < scale < np.inf
    np.testing.assert_allclose(packed.astype(np.float64) * scale, table, atol=1e-3 * size)


def test_no_change_travels_in_float16() -> None:
    packed, scale = messages.for_wire_scaled(np.zeros((3, 2), np.float32), HALF)
    assert (packed.any(), scale) == (False, 1.0)
    packed, scale = messages.for_wire_scaled(np.zeros((0, 2), np.float32), HALF)
    assert (packed.shape, scale) == ((0, 2), 1.0)


def test_float32_needs_no_scale() -> None:
    packed, scale = messages.for_wire_scaled(TABLE, WHOLE)
    assert packed is TABLE
    assert scale == 1.0
