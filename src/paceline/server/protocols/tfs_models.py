"""Which version of which model does a request in TensorFlow Serving's words mean, and what is told about it?

Both wires ask here: documents are dictionaries, as JSON and as protobuf's JSON mapping have them.
"""

from __future__ import annotations

from typing import Any, Final

from paceline.core.errors import ModelNotFound
from paceline.core.tensors import Signature, TensorSpec
from paceline.engine.engine import Engine, Entry, Phase
from paceline.engine.model import ServedModel
from paceline.server.protocols.tfs_faults import type_name

SIGNATURE: Final = "serving_default"


def find(engine: Engine, model: str, version: str | None, label: str | None) -> Entry:
    """The version asked for; the latest when neither a version nor a label is given.

    Raises:
        ModelNotFound: there is none; harnesses look for the word "Servable".
        InvalidRequest: the label stands for nothing.
    """
    if label is not None:
        version = engine.labelled(model, label)
    try:
        if model:  # an empty name would be the default model's
            return engine.entry(model, version)
    except ModelNotFound:
        pass
    wanted = f"Latest({model})" if version is None else f"Specific({model}, {version})"
    raise ModelNotFound(f"Servable not found for request: {wanted}", model=model)


def find_served(engine: Engine, model: str, version: str | None, label: str | None) -> ServedModel:
    """The same, once it takes requests.

    Raises:
        ModelNotFound, InvalidRequest: as `find`.
        ModelNotReady: it does not.
    """
    entry = find(engine, model, version, label)
    return entry.served or engine.model(entry.name, entry.version)


def find_versions(engine: Engine, model: str, version: str | None, label: str | None) -> list[Entry]:
    """The version asked for, or all of the model, newest first.

    Raises:
        ModelNotFound: there is none.
        InvalidRequest: the label stands for nothing.
    """
    if label is not None:
        version = engine.labelled(model, label)
    known = engine.versions(model)
    if not known:
        raise ModelNotFound(f"Could not find any versions of model {model}", model=model)
    if version is not None and version not in known:
        raise ModelNotFound(f"Could not find version {version} of model {model}", model=model)
    wanted = [version] if version is not None else reversed(known)
    return [engine.entry(model, each) for each in wanted]


def state(entry: Entry) -> dict[str, Any]:
    """The state of a version."""
    failed = entry.phase is Phase.FAILED
    status = {"error_code": "INTERNAL" if failed else "OK", "error_message": entry.reason if failed else ""}
    return {"version": entry.version, "state": entry.phase.value, "status": status}


def signatures(engine: Engine, entry: Entry) -> dict[str, Any]:
    """The signatures of a version by name, as in the message SignatureDefMap.

    Raises:
        ModelNotReady: its file has not been read.
    """
    if not entry.platform:
        engine.model(entry.name, entry.version)  # says why
    return {"signature_def": {SIGNATURE: _signature_def(entry.signature)}}


def _signature_def(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": {spec.name: _tensor_info(spec) for spec in signature.inputs},
        "outputs": {spec.name: _tensor_info(spec) for spec in signature.outputs},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    return {
        "dtype": f"DT_{type_name(spec.datatype).upper()}",
        "tensor_shape": {
            "dim": [{"size": str(size), "name": ""} for size in spec.shape],
            "unknown_rank": False,
        },
        "name": f"{spec.name}:0",
    }
