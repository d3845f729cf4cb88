"""Receipts and heads are found where students and custodians keep them."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from ktan.answers import AnswerManifest, AnswerStore
from ktan.teacher import AnswerTap
from privacy.audit.evidence import read_head, read_receipts
from privacy.errors import PrivacyError


def test_reads_a_students_answer_store(original, tmp_path) -> None:
    """Written by the store itself, not by a copy of its format."""
    tap = AnswerTap(
        name="probabilities", kind="probabilities", shape=(2,), noise_sd=0.1, temperature=1.0
    )
    store = AnswerStore.open(tmp_path / "answers", AnswerManifest("v1", (tap,)))
    for number, receipt in enumerate(original.receipts):
        digests = np.full((1, 32), number, dtype=np.uint8)
        store.begin(receipt.request_id, digests)
        answers = {"probabilities": np.zeros((1, 2), dtype=np.float32)}
        store.finish(receipt.request_id, answers, receipt.to_json())
    store.begin("pending", np.full((1, 32), 99, dtype=np.uint8))
    evidence = read_receipts(tmp_path / "answers")
    assert sorted(item.request_id for _, item in evidence.receipts) == [
        item.request_id for item in original.receipts
    ]
    assert {item for _, item in evidence.receipts} == set(original.receipts)
    assert evidence.damaged == []


def test_reads_json_in_its_common_shapes(original, tmp_path) -> None:
    values = [receipt.to_json() for receipt in original.receipts]
    shapes = {
        "one.json": json.dumps(values[0], indent=2),
        "wrapped.json": json.dumps({"receipt": values[1], "note": "kept by bob"}),
        "list.json": json.dumps(values[2:4]),
        "lines.jsonl": "\n".join(json.dumps(value) for value in values) + "\n",
    }
    for name, text in shapes.items():
        (tmp_path / name).write_text(text)
    counts = {name: len(read_receipts(tmp_path / name).receipts) for name in shapes}
    assert counts == {"one.json": 1, "wrapped.json": 1, "list.json": 2, "lines.jsonl": 5}
    assert len(read_receipts(tmp_path).receipts) == 9


def test_passes_over_other_files_in_a_folder_but_not_when_named(original, tmp_path) -> None:
    (tmp_path / "one.json").write_bytes(original.receipts[0].to_json_bytes())
    (tmp_path / "manifest.json").write_text('{"teacher_version": "v1"}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    evidence = read_receipts(tmp_path)
    assert (len(evidence.receipts), evidence.damaged) == (1, [])
    assert read_receipts(tmp_path / "manifest.json").damaged[0][0] == tmp_path / "manifest.json"


def test_a_receipt_that_cannot_be_read_is_reported(original, tmp_path) -> None:
    value = original.receipts[0].to_json()
    (tmp_path / "bad.json").write_text(json.dumps(value | {"charge": -1}))
    evidence = read_receipts(tmp_path)
    assert evidence.receipts == []
    assert evidence.damaged[0][0] == tmp_path / "bad.json"
    assert "non-negative" in evidence.damaged[0][1]


def chunk(path: Path, header: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize(
    "header",
    [
        b'{"__metadata__":{"receipt":"{"}}',
        b'{"__metadata__":{"receipt":"[]"}}',
        b'{"__metadata__":{"receipt":3}}',
        b'{"__metadata__":{"requests":"{}"}}',
        b'{"__metadata__":{"requests":"[]"}}',
        b'{"__metadata__":{"requests":"[{}]"}}',
        b"\xff",
    ],
)
def test_a_chunk_whose_receipt_cannot_be_read_is_reported(tmp_path, header) -> None:
    chunk(tmp_path / "r1.safetensors", header)
    [(file, why)] = read_receipts(tmp_path).damaged
    assert file == tmp_path / "r1.safetensors"
    assert "Error" not in why


@pytest.mark.parametrize("requests", ["{}", "[]", "3", "{", [{}], [3], [{"receipt": 3}]])
def test_what_cannot_be_read_hides_no_receipt_beside_it(original, tmp_path, requests) -> None:
    one, other = (json.dumps(receipt.to_json()) for receipt in original.receipts[:2])
    metadata = {"receipt": one, "requests": requests}
    if isinstance(requests, list):
        metadata["requests"] = json.dumps([*requests, {"receipt": other}])
    chunk(tmp_path / "r1.safetensors", json.dumps({"__metadata__": metadata}).encode())
    evidence = read_receipts(tmp_path)
    kept = original.receipts[: 2 if isinstance(requests, list) else 1]
    assert [receipt for _, receipt in evidence.receipts] == list(kept)
    assert len(evidence.damaged) == 1


@pytest.mark.parametrize("header", [b"{}", b"[]", b'{"__metadata__":{"epoch":"3"}}'])
def test_weights_beside_the_answers_are_no_receipts(original, tmp_path, header) -> None:
    """A student's run folder may be named as well as the answers folder in it."""
    checkpoint, inner = tmp_path / "checkpoint.safetensors", tmp_path / "answers"
    chunk(checkpoint, header)
    inner.mkdir()
    with pytest.raises(PrivacyError, match="holds no receipt; name a student's answers folder"):
        read_receipts(tmp_path)
    with pytest.raises(PrivacyError, match="holds no receipt"):
        read_receipts(checkpoint)
    (inner / "one.json").write_bytes(original.receipts[0].to_json_bytes())
    evidence = read_receipts(tmp_path)
    assert (len(evidence.receipts), evidence.damaged) == (1, [])


def test_an_absurd_header_length_is_not_read(tmp_path) -> None:
    (tmp_path / "r1.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    assert "no safetensors header" in read_receipts(tmp_path).damaged[0][1]


def test_the_key_that_a_student_pinned(original, tmp_path) -> None:
    (tmp_path / "one.json").write_bytes(original.receipts[0].to_json_bytes())
    public = original.keys.public
    (tmp_path / "service.json").write_text(json.dumps({"public_key": public.hex()}))
    [(file, pinned)] = read_receipts(tmp_path).pins
    assert (file, pinned.current) == (tmp_path / "service.json", public)


def test_no_receipt_at_all_is_a_mistake(tmp_path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(PrivacyError):
            read_receipts(path)


def test_a_head_from_a_witness_from_an_export_and_from_neither(original, tmp_path) -> None:
    export = tmp_path / "log.jsonl"
    export.write_bytes(b"\n".join(original.lines) + b"\n")
    pretty = tmp_path / "pretty.json"
    pretty.write_text(json.dumps(original.heads[-1].to_json(), indent=2))
    for path in (original.witness, export, pretty):
        assert read_head(path) == original.heads[-1]
    # Either of the witness's two slots may hold the newest head.
    one, two = original.witness.read_bytes()[:4096], original.witness.read_bytes()[4096:]
    for copy in (one + two, two + one):
        export.write_bytes(copy)
        assert read_head(export) == original.heads[-1]
    for content in ("", "{}", "[]", "3", "hello"):
        export.write_text(content)
        with pytest.raises(PrivacyError, match="no signed head"):
            read_head(export)
    with pytest.raises(PrivacyError, match="there is no head"):
        read_head(tmp_path / "nothing")
