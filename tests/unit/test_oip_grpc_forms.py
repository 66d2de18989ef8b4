"""A message that looks like one before it is read as the parser would read it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paceline.core.errors import PacelineError
from paceline.core.tensors import DataType, Signature, TensorSpec
from paceline.server.messages import parsed
from paceline.server.protocols.oip_grpc_forms import Forms
from paceline.server.protocols.oip_grpc_infer import REQUEST, Asked, Codec

SIGNATURE = Signature(
    (TensorSpec("a", DataType.FP32, (-1, 2)), TensorSpec("b", DataType.BOOL, (-1, 1))),
    (TensorSpec("y", DataType.FP32, (-1, 2)), TensorSpec("z", DataType.FP32, (-1, 2))),
    batched=True,
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    rows = draw(st.integers(0, 2))
    a = np.array(draw(st.lists(st.floats(width=32), min_size=rows * 2, max_size=rows * 2)), "<f4").tobytes()
    b = draw(st.binary(min_size=rows, max_size=rows)) if draw(st.booleans()) else bytes(rows)
    inputs = [
        {"name": "a", "datatype": "FP32", "shape": (rows, 2)},
        {"name": "b", "datatype": "BOOL", "shape": (rows, 1)},
    ]
    raw = [a, b]
    if draw(st.booleans()):
        inputs.reverse()
        raw.reverse()
    message = REQUEST(
        model_name="m",
        id=draw(st.sampled_from(["", "1", "22", "ü"])),
        inputs=inputs,
        outputs=draw(st.sampled_from([(), ({"name": "z"},), ({"name": "z"}, {"name": "y"})])),
        parameters=draw(st.sampled_from([{}, {"timeout": {"int64_param": 7}}])),
        raw_input_contents=raw,
    )
    data = bytearray(message.SerializeToString())
    if draw(st.booleans()) and data:
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 3)) == 0:
        data += draw(st.sampled_from([b"\x1a\x019", b"\x3a\x00", b"\x40\x01", b"\x0a\x01n"]))
    return bytes(data)


def parse(codec: Codec, data: bytes) -> tuple[Any, Asked | str]:
    try:
        request = parsed(REQUEST, data)
        return request, codec.read(request)
    except PacelineError as error:
        return None, str(error)


def read(forms: Forms, codec: Codec, data: bytes) -> Asked | str:
    form = forms.find(data)
    if form is None:
        request, asked = parse(codec, data)
        if isinstance(asked, Asked):
            forms.learn(data, request, asked, codec)
        return asked
    assert form.model_name == parsed(REQUEST, data).model_name
    try:
        return form.read(data)
    except PacelineError as error:
        return str(error)


def shown(asked: Asked | str) -> Any:
    if isinstance(asked, str):
        return asked
    tensors = [(array.shape, array.dtype.str, array.tobytes()) for array in asked.inputs]
    return tensors, asked.wanted, asked.echo, asked.timeout_s


@given(st.lists(messages(), min_size=1, max_size=8))
def test_read_by_form_or_by_parser_is_the_same(many: list[bytes]) -> None:
    codec, forms = Codec("m", "1", SIGNATURE), Forms()
    for data in [*many, *many]:
        assert shown(read(forms, codec, data)) == shown(parse(codec, data)[1])


def test_a_form_is_used() -> None:
    codec, forms = Codec("m", "1", SIGNATURE), Forms()

    def message(name: str, number: float) -> bytes:
        encoded: bytes = REQUEST(
            model_name="m",
            id=name,
            inputs=[
                {"name": "a", "datatype": "FP32", "shape": (1, 2)},
                {"name": "b", "datatype": "BOOL", "shape": (1, 1)},
            ],
            raw_input_contents=[np.full(2, number, "<f4").tobytes(), b"\1"],
        ).SerializeToString()
        return encoded

    read(forms, codec, message("one", 1.0))
    form = forms.find(message("two", 2.0))
    assert form is not None
    asked = form.read(message("two", 2.0))
    assert asked.inputs[0].tolist() == [[2.0, 2.0]]
    assert asked.echo == b"\x1a\x03two"
    assert forms.find(message("three", 2.0)) is None
