"""Whether all that left a node under secure sums is masked, or listed on the page on privacy."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as Sent

from common import messages
from tests.privacy_page import documented

_MASKED = {
    messages.TRAIN, messages.EVALUATE, messages.QUERY_DESCRIBE, messages.QUERY_COUNT,
}  # fmt: skip
_NEXT = "."
"""Is in the names of what travels for the next sum alone, which the last sum has not."""
_DEVIATIONS = 6
"""By which the share of ones among the bits of masked vectors may be off a half."""


@dataclass(frozen=True)
class Run:
    """A run whose nodes' answers are looked at.

    Parameters
    ----------
    nodes : int
    long, short : int
        Numbers of each kind in the masked vector of a round of training.
    signed : bool
        Whether nodes sign their keys; those of a simulation do not.
    """

    nodes: int
    long: int
    short: int
    signed: bool = True

    def listed(self, kind: str, signer: str) -> dict[str, str]:
        """Every field of an answer, and what it holds, as regular expressions.

        Parameters
        ----------
        kind : str
            Of the message.
        signer : str
            The node's public key, or `messages.NOBODY`.
        """
        others = self.nodes - 1
        masked = {"long": r"uint64 \(\d+,\)", "short": r"uint32 \(\d+,\)"}
        of_training = {"long": rf"uint64 \({self.long},\)", "short": rf"uint32 \({self.short},\)"}
        keys = {
            "channel": "33 bytes",
            "mask": "33 bytes",
            "signer": re.escape(repr(signer)),
            "signature": "10[0-4] bytes" if self.signed else "1 bytes",
            "kinds": rf"({'|'.join(map(re.escape, _MASKED))}| )+",
        }
        shares = {
            "commitment": "32 bytes",
            "places": f"{others} of int",
            "shares": f"{others} of \\d+ bytes",
        }
        next_keys = {f"keys.{name}": pattern for name, pattern in keys.items()}
        next_shares = {f"shares.{name}": pattern for name, pattern in shares.items()}
        return {
            messages.QUERY_CATALOGUE: {"status": "'kept'"},
            messages.QUERY_SYNTHETIC: {"answer": "'updates'"},
            messages.QUERY_KEYS: keys,
            messages.QUERY_SHARES: shares,
            messages.QUERY_CONFIRM: {
                "places": r"\d+ of int",
                "words": r"\d+ of 32 bytes",
            },
            messages.QUERY_UNMASK: {
                "places": f"{self.nodes} of int",
                "shares": f"{self.nodes} of \\d+ bytes",
                **next_shares,
            },
            messages.QUERY_RECOMMEND: {"users": "int"},
            messages.TRAIN: of_training | next_keys,
            messages.EVALUATE: masked | next_keys,
            **dict.fromkeys((messages.QUERY_DESCRIBE, messages.QUERY_COUNT), masked),
        }[kind]


def check(sent: Mapping[str, Sequence[bytes]], run: Run) -> None:
    """Fail where something left a node that is neither masked nor listed.

    Parameters
    ----------
    sent : Mapping[str, Sequence[bytes]]
        Every answer of each node, by who signs its keys.
    run : Run
    """
    vectors: dict[str, list[np.ndarray]] = {}
    for signer, answers in sent.items():
        for content in answers:
            message = _read(content)
            kind = message.metadata.message_type
            fields = _fields(message)
            if fields == {"status": repr(messages.NEEDS_CATALOGUE)}:
                continue
            listed = run.listed(kind, signer)
            if kind == messages.QUERY_UNMASK and not any(_NEXT in name for name in fields):
                listed = {name: one for name, one in listed.items() if _NEXT not in name}
            assert fields.keys() == listed.keys() <= documented(kind), (kind, fields)
            for name, pattern in listed.items():
                assert re.fullmatch(pattern, fields[name]), (kind, name, fields[name])
            if kind in _MASKED:
                arrays = message.content.array_records["single"]
                vectors.setdefault(kind, []).extend(array.numpy() for array in arrays.values())
    assert {messages.TRAIN, messages.EVALUATE, messages.QUERY_DESCRIBE} <= vectors.keys()
    for kind, own in vectors.items():
        _check_masked(kind, own)


def check_listed(answers: Sequence[bytes]) -> set[str]:
    """Fail where a field left a node that the page on privacy does not list.

    Parameters
    ----------
    answers : Sequence[bytes]
        Of nodes whose sums are not masked.

    Returns
    -------
    set[str]
        The fields that left, of all messages.
    """
    left = set[str]()
    for content in answers:
        message = _read(content)
        fields = _fields(message)
        if fields != {"status": repr(messages.NEEDS_CATALOGUE)}:
            kind = message.metadata.message_type
            assert fields.keys() <= documented(kind), (kind, fields)
            left |= fields.keys()
    return left


def _read(content: bytes) -> Message:
    """An answer of which every byte is part of what is looked at."""
    sent = Sent.FromString(content)
    message = message_from_proto(sent)
    assert message_to_proto(message).SerializeToString(deterministic=True) == (
        sent.SerializeToString(deterministic=True)
    )
    assert not message.has_error(), message.error
    assert not message.metadata.group_id
    return message


def _fields(message: Message) -> dict[str, str]:
    """What an answer holds by the names of its fields."""
    records = message.content
    assert not records.metric_records
    fields = {
        name if record in {"values", "status"} else f"{record}.{name}": _described(value)
        for record, values in records.config_records.items()
        for name, value in values.items()
    }
    for record, arrays in records.array_records.items():
        for name, array in arrays.items():
            assert Array(array.numpy()).data == array.data  # nothing behind the numbers
            place = name if record == "single" else f"{record}.{name}"
            fields[place] = f"{array.dtype} {tuple(array.shape)}"
    return fields


def _described(value: object) -> str:
    if isinstance(value, list) and isinstance(value[0], str):
        return " ".join(value)
    if isinstance(value, list):
        (what,) = {_described(one) for one in value}
        return f"{len(value)} of {what}"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return repr(value) if isinstance(value, str) else type(value).__name__


def _check_masked(kind: str, vectors: Sequence[np.ndarray]) -> None:
    """Numbers that are not independent of the data repeat themselves, or have more zeros."""
    for vector in vectors:
        assert len(np.unique(vector)) == len(vector), f"numbers of a {kind} repeat themselves"
    bits = np.unpackbits(np.concatenate([vector.view(np.uint8) for vector in vectors]))
    apart = abs(bits.mean() - 0.5) * 2 * len(bits) ** 0.5
    assert apart < _DEVIATIONS, f"the bits of a {kind} are {apart:.1f} deviations from random"
