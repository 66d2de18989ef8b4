"""TensorFlow Serving's own stubs against a server, in an environment that has TensorFlow; writes JSON.

    python tfs_stubs.py HOST:PORT BASE_PATH

The server has the models `half` (x / 2 + 2), `flowers` and, after a reload, `twice` below BASE_PATH.
"""

import json
import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


def predict(stub, tensor, name="half", **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    for key, value in spec.items():
        setattr(request.model_spec, key, value)
    request.inputs["x"].CopyFrom(tensor)
    return stub.Predict(request, 20)


def answered(response):
    output, spec = response.outputs["y"], response.model_spec
    return {
        "float_val": list(output.float_val),
        "ndarray": tf.make_ndarray(output).tolist(),
        "spec": [spec.name, spec.version.value, spec.signature_name],
    }


def error_of(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    raise SystemExit("it was answered")


def metadata(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "half"
    response = stub.GetModelMetadata(request, 20)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    signature = signatures.signature_def["serving_default"]
    sizes = [dim.size for dim in signature.inputs["x"].tensor_shape.dim]
    return [tf.dtypes.as_dtype(signature.inputs["x"].dtype).name, sizes, list(signature.outputs), signature.method_name]


def classify(stub):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "flowers"
    feature = request.input.example_list.examples.add().features.feature["x"]
    feature.float_list.value.extend([5.1, 3.5, 1.4, 0.2])
    return {each.label: each.score for each in stub.Classify(request, 20).result.classifications[0].classes}


def regress(stub):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "half"
    for value in (1.0, 5.0):
        request.input.example_list.examples.add().features.feature["x"].float_list.value.append(value)
    return [each.value for each in stub.Regress(request, 20).result.regressions]


def status(stub, name):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    kind = get_model_status_pb2.ModelVersionStatus.State
    return [[each.version, kind.Name(each.state)] for each in stub.GetModelStatus(request, 20).model_version_status]


def reload(stub, base_path):
    request = model_management_pb2.ReloadConfigRequest()
    for name in ("half", "twice"):
        config = request.config.model_config_list.config.add(name=name, base_path=f"{base_path}/{name}")
        config.version_labels["stable"] = 1
    return stub.HandleReloadConfigRequest(request, 60).status.error_code


def main(address, base_path):
    with grpc.insecure_channel(address) as channel:
        predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        one, many = tf.make_tensor_proto([1.0]), tf.make_tensor_proto(np.array([1, 2, 5], np.float32))
        found = {
            "typed": answered(predict(predictions, one)),
            "content": answered(predict(predictions, many)),
            "content_was_raw": bool(many.tensor_content),
            "unknown": error_of(predict, predictions, one, "nothing"),
            "signature": error_of(predict, predictions, one, signature_name="other"),
            "metadata": metadata(predictions),
            "classes": classify(predictions),
            "regressed": regress(predictions),
            "status": status(models, "half"),
            "reloaded": reload(models, base_path),
            "gone": error_of(status, models, "flowers"),
            "labelled": answered(predict(predictions, tf.make_tensor_proto([[2.0]]), "twice", version_label="stable")),
        }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
