"""What is a server, which models has it, and what do they take?

    Paceline               says all of it in /openapi.json, with an example
    Open Inference         GET /v2 and /v2/models/NAME; POST /v2/repository/index where that is on
    TensorFlow Serving     GET /v1/models/NAME and its metadata; it does not list its models
    any other              /openapi.json, if it has examples there, as FastAPI has; else nothing is known

Rules:
- Nothing but questions that change nothing: no inference here.
- What a server does not say is unknown, and no error: the user may know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote

from paceline.core.errors import ConfigError
from paceline.core.tensors import DATATYPES, DataType, Signature, TensorSpec
from paceline.loadtest.requests import openapi_examples
from paceline.loadtest.requests.asking import Asker, Reply
from paceline.loadtest.target import Protocol as WireProtocol

DEFAULT_SIGNATURE: Final = "serving_default"
_TFS_NAMES: Final = {"FLOAT": "FP32", "DOUBLE": "FP64", "HALF": "FP16", "BFLOAT16": "BF16", "STRING": "BYTES"}
_TFS_ERRORS: Final = ("Missing model name", "versions of model", "Servable not found")

ITEMS: Final = Signature((TensorSpec("item", DataType.BYTES, (-1,)),), (), batched=True, items=True)
"""Of what takes any JSON, as far as is known."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is known of a model.

    Attributes:
        version: asked for; "": the one that the server takes by itself.
        signature: None: unknown.
        signature_name: in TensorFlow Serving's words.
        example: JSON of one valid item, as a plain route takes it.
        path: of its plain route, behind the server's prefix; "" where there is none.
        lists_path: of the route for lists of items.
        takes_lists: `path` takes lists alone.
    """

    name: str = ""
    version: str = ""
    signature: Signature | None = None
    signature_name: str = DEFAULT_SIGNATURE
    example: bytes | None = None
    path: str = ""
    lists_path: str = ""
    takes_lists: bool = False


class Server(Protocol):
    """A kind of server.

    Attributes:
        says: what it says it is; "" if it does not.
        protocols: that it speaks, the one to take first.
    """

    says: str
    protocols: tuple[WireProtocol, ...]

    def names(self) -> Sequence[str]:
        """Its models; none where it does not list them."""

    def not_ready(self, name: str) -> str:
        """Why a model does not answer yet; "" if it does.

        Raises:
            ConfigError: it never will.
        """

    def model(self, name: str, version: str) -> Model:
        """What a model is like.

        Raises:
            ConfigError: there is no such model.
        """


class Paceline:
    """This project's own."""

    protocols: tuple[WireProtocol, ...] = ("plain", "oip", "oip-binary", "tfs", "oip-grpc", "tfs-grpc")

    def __init__(self, asker: Asker, document: Mapping[str, Any]) -> None:
        self.says = f"paceline {document['info']['version']}"
        self._asker = asker
        self._models: dict[str, Any] = {each["name"]: each for each in document["x-models"]}

    def names(self) -> Sequence[str]:
        return list(self._models)

    def not_ready(self, name: str) -> str:
        said = self._models[name]
        state, reason = said["state"], said["reason"]
        if state == "END":
            raise ConfigError(f"model '{name}' is not ready, and will not be: {reason}")
        if state == "AVAILABLE":
            return ""
        document = self._asker.get("/openapi.json").document  # for when we are asked again
        self._models = {each["name"]: each for each in document["x-models"]}
        return f"{state.lower()}: {reason}" if reason else state.lower()

    def model(self, name: str, version: str) -> Model:
        said = self._models[name]
        items = said["inputs"][0]["datatype"] == "JSON" if said["inputs"] else False
        inputs = [{**each, "datatype": "BYTES"} for each in said["inputs"]] if items else said["inputs"]
        base = "" if len(self._models) == 1 else f"/models/{quote(name, safe='')}"
        example = self._asker.get(f"{base}/example")
        return Model(
            name=name,
            version=version,
            signature=Signature(tensor_specs(inputs), (), batched=said["batched"], items=items),
            example=example.body if example.ok else None,
            path=f"{base}/predict",
            lists_path=f"{base}/batch-predict",
        )


class OpenInference:
    """Triton, MLServer, KServe, OpenVINO Model Server."""

    protocols: tuple[WireProtocol, ...] = ("oip", "oip-binary")

    def __init__(self, asker: Asker, about: Mapping[str, Any]) -> None:
        self.says = " ".join(str(about[key]) for key in ("name", "version") if about.get(key))
        self._asker = asker

    def names(self) -> Sequence[str]:
        body = {"content-type": "application/json"}
        index = self._asker.post("/v2/repository/index", b"{}", body).document
        if not isinstance(index, list):
            index = (self._asker.get("/v2/models").document or {}).get("models", [])
        names = [each.get("name", "") if isinstance(each, dict) else str(each) for each in index]
        return sorted({name for name in names if name})

    def not_ready(self, name: str) -> str:
        reply = self._asker.get(f"/v2/models/{quote(name, safe='')}/ready")
        # Triton answers 400 for a model that is not ready, and for one that it never heard of.
        return f"status {reply.status}" if reply.status in (400, 503) and name in self.names() else ""

    def model(self, name: str, version: str) -> Model:
        reply = self._asker.get(f"/v2/models/{quote(name, safe='')}" + (f"/versions/{version}" if version else ""))
        said = reply.document
        if not reply.ok or not isinstance(said, dict):
            raise _no_model(name, reply)
        inputs = tensor_specs(said.get("inputs") or [])
        return Model(name=name, version=version, signature=described(inputs) if inputs else None)


class TensorFlowServing:
    """TensorFlow Serving, and what speaks version 1 of its API."""

    protocols: tuple[WireProtocol, ...] = ("tfs",)

    def __init__(self, asker: Asker, says: str) -> None:
        self._asker = asker
        self.says = says

    def names(self) -> Sequence[str]:
        listed = self._asker.get("/v1/models").document  # KServe does list them
        found = listed.get("models", []) if isinstance(listed, dict) else []
        return [each for each in found if isinstance(each, str)]

    def not_ready(self, name: str) -> str:
        reply = self._asker.get(f"/v1/models/{quote(name, safe='')}")
        said = reply.document if isinstance(reply.document, dict) else {}
        if not reply.ok and "model_version_status" not in said:
            raise _no_model(name, reply)
        states = [each.get("state", "") for each in said.get("model_version_status", [])]
        return "" if "AVAILABLE" in states or not states else ", ".join(states).lower()

    def model(self, name: str, version: str) -> Model:
        path = f"/v1/models/{quote(name, safe='')}" + (f"/versions/{version}" if version else "")
        said = self._asker.get(f"{path}/metadata").document
        known = said.get("metadata", {}).get("signature_def", {}) if isinstance(said, dict) else {}
        return of_signatures(name, version, known.get("signature_def", {}))


class Elsewhere:
    """Any other server: a route of it, and the example that its description has."""

    protocols: tuple[WireProtocol, ...] = ("plain",)
    says = ""

    def __init__(self, document: Mapping[str, Any], path: str) -> None:
        self._examples = openapi_examples.of(document)
        self.path = path

    def names(self) -> Sequence[str]:
        return []

    def not_ready(self, name: str) -> str:
        return ""

    def model(self, name: str, version: str) -> Model:
        """What its route takes.

        Raises:
            ConfigError: it is not known which route.
        """
        path = self.path
        if not path and len(self._examples) == 1:
            (path,) = self._examples
        if not path:
            listed = f"; it describes {', '.join(self._examples)}" if self._examples else ""
            raise ConfigError(
                f"the server is of no known kind, and the URL has no path{listed}",
                hint="name the route, such as http://HOST:PORT/predict",
            )
        example = self._examples.get(path.partition("?")[0])
        signature = ITEMS if example is not None else None
        return Model(name=name, signature=signature, example=example, path=path, lists_path=path)


def identify(asker: Asker, route: str, model: str) -> Server:
    """Find out what answers there.

    Args:
        route: of the URL, behind its prefix, where it says nothing of the protocol.
        model: the one wanted, if it is named: TensorFlow Serving shows itself only then.

    Raises:
        Unreachable, NotHttp: nothing does.
    """
    description = asker.get("/openapi.json").document
    document = description if isinstance(description, dict) else {}
    if isinstance(document.get("x-models"), list):
        return Paceline(asker, document)
    if route:
        return Elsewhere(document, route)
    about = asker.get("/v2")
    if about.ok and isinstance(about.document, dict) and "name" in about.document:
        return OpenInference(asker, about.document)
    return _version_1(asker, model) or Elsewhere(document, route)


def _version_1(asker: Asker, model: str) -> Server | None:
    """TensorFlow Serving says so in its errors, too; KServe has lists."""
    said = asker.get("/v1/models" + (f"/{quote(model, safe='')}" if model else "")).document
    if not isinstance(said, dict):
        return None
    error = str(said.get("error", ""))
    if "model_version_status" in said or any(words in error for words in _TFS_ERRORS):
        return TensorFlowServing(asker, "TensorFlow Serving")
    return TensorFlowServing(asker, "") if "models" in said or "ready" in said else None


def described(inputs: tuple[TensorSpec, ...]) -> Signature:
    """A signature of metadata, which says nothing of rows: an open first dimension of every input stands for them."""
    return Signature(inputs, (), batched=all(spec.shape[:1] == (-1,) for spec in inputs))


def of_signatures(name: str, version: str, signatures: Mapping[str, Any]) -> Model:
    """What a model is like, by the signatures that TensorFlow Serving tells, as JSON."""
    usable = {key: each for key, each in signatures.items() if each.get("inputs")}
    key = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in usable or not usable else sorted(usable)[0]
    infos = usable.get(key, {}).get("inputs", {})
    specs = tuple(_tensor_info(input_name, infos[input_name]) for input_name in sorted(infos))
    return Model(name=name, version=version, signature=described(specs) if specs else None, signature_name=key)


def _tensor_info(name: str, info: Mapping[str, Any]) -> TensorSpec:
    word = str(info.get("dtype", "")).removeprefix("DT_")
    shape = info.get("tensor_shape") or info.get("tensorShape") or {}
    if shape.get("unknown_rank") or shape.get("unknownRank"):
        raise ConfigError(f"input '{name}': its number of dimensions is not known", hint="give --data or --body")
    return _spec(name, _TFS_NAMES.get(word, word), [int(dim.get("size", 0)) for dim in shape.get("dim", [])])


def tensor_specs(inputs: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """Specs of inputs, each described by its `name`, `datatype` and `shape`.

    Raises:
        ConfigError: a datatype is not known.
    """
    return tuple(_spec(each["name"], each["datatype"], each["shape"]) for each in inputs)


def _spec(name: str, datatype: str, shape: Sequence[int]) -> TensorSpec:
    known = DATATYPES.get(datatype)
    if known is None:
        raise ConfigError(f"input '{name}' is {datatype}, which is not known here", hint="give --body")
    return TensorSpec(name, known, tuple(int(size) for size in shape))


def _no_model(name: str, reply: Reply) -> ConfigError:
    return ConfigError(f"model '{name}': the server answers {reply.status}: {reply.says}")
