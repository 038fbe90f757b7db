from dataclasses import MISSING, fields, replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, RecordDict

from common import messages
from common.catalogue import ItemIndex
from common.errors import SnowdropError
from common.secure.fixed_point import Field, Layout
from common.settings import RunSettings, TrainingSettings

TABLE = np.arange(6, dtype=np.float32).reshape(3, 2)
HEADER: dict[str, Any] = {"catalogue": "v", "training": "ab" * 8, "round": 2}
SETTINGS = RunSettings().pack()

BODIES: list[messages.Body] = [
    messages.CatalogueNotice(["ä", "b"], ["warm", "test"]),
    messages.DescribeRequest("v"),
    messages.DescribeAnswer(1, 2, 3, 4, 5, 6, 7.5),
    messages.TrainRequest(
        **HEADER, best_round=1, settings=SETTINGS, arrays={"table": TABLE, "b": TABLE.T}
    ),
    messages.TrainRequest(**HEADER, best_round=1, settings=SETTINGS, scale=0.25),
    messages.TrainAnswer(3, 1.5, {"change": TABLE, "touches": np.array([1, 2, 3])}),
    messages.TrainAnswer(3, 1.5),
    messages.EvaluateRequest(
        **HEADER,
        settings=SETTINGS,
        task="cold-items",
        splits=["test", "test"],
        scorers=["profile", "head"],
        methods=["ridge", "ridge"],
        forms=[1, 2],
        arrays={"0/items": TABLE, "0/warm": TABLE, "1/items": TABLE.T},
    ),
    messages.EvaluateRequest(
        **HEADER,
        settings=SETTINGS,
        task="t",
        splits=["test"],
        scorers=["random"],
        methods=["m"],
        forms=[1],
    ),
    messages.EvaluateAnswer([2, 1], ["recall@20"], [0.5, 1.0]),
    messages.TrainAnswer(3, 1.5, {"change": TABLE.astype(np.float16)}),
    messages.CountRequest("v"),
    messages.CountAnswer(np.array([4, 1, 0])),
    messages.RecommendRequest(
        **HEADER, settings=SETTINGS, top=5, scorer="head", method="m", arrays={"items": TABLE.T}
    ),
    messages.RecommendAnswer(7),
    messages.SyntheticRequest("v", ["ab" * 8]),
    messages.SyntheticRequest("v", []),
    messages.SyntheticAnswer("updates"),
    messages.SyntheticAnswer("both", "ab" * 8, 1.5),
    messages.SyntheticAnswer(
        "synthetic",
        "ab" * 8,
        synthetic_users={"offsets": np.array([0, 2, 3]), "items": np.array([1, 4, 0])},
    ),
    messages.HeadsRequest(**HEADER, best_round=1, settings=SETTINGS, arrays={"table": TABLE}),
    messages.HeadsAnswer(),
    messages.KeysRequest("s", "train"),
    messages.KeysAnswer(b"c", b"m"),
    messages.KeysAnswer(b"c", b"m", "ecdsa-sha2-nistp384 AAAA", b"t"),
    messages.SharesRequest("s", 1, [1, 2], [b"c", b"d"], [b"m", b"n"], ["-", "k"], [b"-", b"t"]),
    messages.SharesAnswer(b"h", [2], [b"s"]),
    messages.Masking("s", [2], [b"s"], 3, ["users"], [1], [0], [64]),
    messages.MaskedAnswer(np.arange(3, dtype=np.uint64), np.arange(2, dtype=np.uint32)),
    messages.ConfirmRequest("s", [1, 2]),
    messages.ConfirmAnswer([1, 2], [b"s", b"t"]),
    messages.UnmaskRequest("s", [1, 2]),
    messages.UnmaskAnswer([1, 2], [b"s", b"t"]),
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
        if isinstance(sent, dict):
            assert came.keys() == sent.keys()
        elif not isinstance(sent, np.ndarray):
            assert came == sent
            continue
        pairs = {name: (sent[name], came[name]) for name in sent} if isinstance(sent, dict) else {
            field.name: (sent, came)
        }  # fmt: skip
        for one, other in pairs.values():
            assert other.dtype == one.dtype
            np.testing.assert_array_equal(other, one)


@pytest.mark.parametrize(("body", "name"), REQUIRED, ids=name_of)
def test_a_missing_field_is_malformed(body: messages.Body, name: str) -> None:
    record = body.to_record()
    part = record["single" if isinstance(getattr(body, name), np.ndarray) else "values"]
    del part[name]
    with pytest.raises(SnowdropError, match=f"malformed {type(body).__name__}"):
        type(body).from_record(record)


def test_a_message_without_a_single_array_has_no_record_for_one() -> None:
    assert set(messages.RecommendAnswer(7).to_record()) == {"values"}
    assert set(messages.CountAnswer(np.arange(3)).to_record()) == {"values", "single"}


def test_an_unknown_field_is_malformed() -> None:
    record = messages.RecommendAnswer(7).to_record()
    record.config_records["values"]["more"] = 1
    with pytest.raises(SnowdropError, match="malformed RecommendAnswer"):
        messages.RecommendAnswer.from_record(record)


def test_an_unreadable_array_is_malformed() -> None:
    record = messages.TrainAnswer(1, 1.0, {"change": TABLE}).to_record()
    junk = Array(dtype="float32", shape=(3, 2), stype="numpy.ndarray", data=b"junk")
    record.array_records["sums"]["change"] = junk
    with pytest.raises(SnowdropError, match="malformed TrainAnswer"):
        messages.TrainAnswer.from_record(record)


def test_a_status_is_no_answer() -> None:
    record = messages.status_record(messages.NEEDS_CATALOGUE)
    assert messages.status_of(record) == messages.NEEDS_CATALOGUE
    assert messages.status_of(messages.RecommendAnswer(1).to_record()) is None
    with pytest.raises(SnowdropError):
        messages.RecommendAnswer.from_record(record)


def test_settings_travel() -> None:
    training = RunSettings.parse({"method": "cs-fcf", "dim": 7, "fraction": 0.3}).training()
    request = messages.TrainRequest(
        **HEADER, best_round=0, settings=training.pack(), arrays={"table": TABLE}
    )
    assert request.training_settings() == training
    with pytest.raises(SnowdropError, match="other"):
        replace(request, settings='{"method": "ridge", "other": 1}').training_settings()


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
    with pytest.raises(SnowdropError, match="NaN or Inf"):
        messages.for_wire(table, settings)


@pytest.mark.filterwarnings("error")
def test_what_float16_cannot_hold_is_told() -> None:
    with pytest.raises(SnowdropError, match=r"up to 7e\+04, too large for wire_dtype = float16"):
        messages.for_wire(np.full((2, 2), -70_000, np.float32), HALF)


def test_an_array_record_that_no_field_has_is_malformed() -> None:
    record = messages.TrainAnswer(1, 1.0, {"change": TABLE}).to_record()
    record["more"] = record["sums"]
    with pytest.raises(SnowdropError, match="malformed TrainAnswer"):
        messages.TrainAnswer.from_record(record)


RANKINGS = [
    messages.Ranked("test", "profile", "ridge", {"items": TABLE, "a/b": TABLE.T}),
    messages.Ranked("validation", "random", "random"),
    messages.Ranked("test", "head", "mdifffr", {"items": TABLE.T}, forms=3),
]


def test_rankings_come_out_as_they_went_in() -> None:
    header = {**HEADER, "settings": SETTINGS, "task": "cold-items"}
    request = messages.EvaluateRequest.of(header, RANKINGS)
    read = messages.EvaluateRequest.from_record(request.to_record()).rankings()
    assert len(read) == len(RANKINGS)
    for own, sent in zip(read, RANKINGS, strict=True):
        for field in ("split", "scorer", "method", "forms"):
            assert getattr(own, field) == getattr(sent, field)
        assert own.arrays.keys() == sent.arrays.keys()
        for name in own.arrays:
            np.testing.assert_array_equal(own.arrays[name], sent.arrays[name])


@pytest.mark.parametrize(
    "changes",
    [
        {"scorers": ["head"]},
        {"methods": []},
        {"forms": [1, 1]},
        {"arrays": {"3/items": TABLE}},
        {"arrays": {"items": TABLE}},
    ],
)
def test_rankings_that_do_not_fit_together_are_malformed(changes: dict[str, Any]) -> None:
    header = {**HEADER, "settings": SETTINGS, "task": "cold-items"}
    request = replace(messages.EvaluateRequest.of(header, RANKINGS), **changes)
    with pytest.raises(SnowdropError, match="malformed EvaluateRequest"):
        request.rankings()


LAYOUT = Layout((Field("users", 1), Field("sums", 4, exponent=7, bits=32)), 5)


def test_what_stands_beside_a_request_leaves_it_as_it_is() -> None:
    request = messages.CountRequest("v").to_record()
    assert messages.Masking.found_beside(request) is None
    masking = messages.Masking.of("s", LAYOUT, {2: b"a", 7: b"b"})
    both = masking.beside(request)
    assert messages.CountRequest.from_record(both) == messages.CountRequest("v")
    assert messages.Masking.found_beside(both) == masking
    assert masking.layout() == LAYOUT
    assert (masking.sources, masking.shares) == ([2, 7], [b"a", b"b"])
    with pytest.raises(SnowdropError, match="malformed Masking"):
        replace(masking, bits=[64]).layout()
    with pytest.raises(SnowdropError, match="malformed Masking"):
        messages.Masking.found_beside(RecordDict({"masking": ConfigRecord({"session": 1})}))


def test_descriptions_of_nodes_are_added_up_by_what_tells_their_order() -> None:
    described = [
        messages.DescribeAnswer(3, 1, 10, 2, 4, 0, 80.0, "timestamp"),
        messages.DescribeAnswer(4, 0, 20, 1, 1, 1, 90.0, "seeded"),
        messages.DescribeAnswer(5, 2, 30, 3, 5, 0, 70.0, "timestamp"),
    ]
    every = [answer.numbers() for answer in described]
    sums = {name: sum(own[name] for own in every) for name in every[0]}
    assert {field.name for field in messages.DescribeAnswer.fields()} == sums.keys()
    assert messages.DescribeAnswer.of_sums(sums) == [
        messages.DescribeAnswer(8, 3, 60, 6, 10, 1, None, "timestamp"),
        messages.DescribeAnswer(4, 0, 0, 0, 0, 0, None, "seeded"),
    ]


def test_counts_that_one_node_withholds_are_unknown_in_the_sum() -> None:
    every = [
        messages.DescribeAnswer(3, 1, 10, 2, 4, 0).numbers(),
        messages.DescribeAnswer(2, order="position").numbers(),
    ]
    sums = {name: sum(own[name] for own in every) for name in every[0]}
    assert messages.DescribeAnswer.of_sums(sums) == [
        messages.DescribeAnswer(2, order="position"),
        messages.DescribeAnswer(3),
    ]
    nobody = dict.fromkeys(sums, np.array([0]))
    assert messages.DescribeAnswer.of_sums(nobody) == [
        messages.DescribeAnswer(0, 0, 0, 0, 0, 0, order="timestamp")
    ]
