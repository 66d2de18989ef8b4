"""Sends every request of a load test's target, one after the other, with clients that are not the load test's."""

from __future__ import annotations

import http.client

import grpc

from paceline.loadtest.target import Target


def refusals(target: Target) -> list[str]:
    """What was answered to requests that brought no prediction."""
    return _over_grpc(target) if target.wire == "grpc" else _over_http(target)


def _over_http(target: Target) -> list[str]:
    refused = []
    connection = http.client.HTTPConnection(target.host, target.port, timeout=20)
    for index, body in enumerate(target.bodies):
        connection.request("POST", target.path_of(index), body, dict(target.headers))
        response = connection.getresponse()
        text = response.read().decode("latin-1")
        if response.status != 200 or '"code":' in text:
            refused.append(f"{response.status} {text}")
    connection.close()
    return refused


def _over_grpc(target: Target) -> list[str]:
    refused = []
    with grpc.insecure_channel(f"{target.host}:{target.port}") as channel:
        call = channel.unary_unary(target.path)
        for body in target.bodies:
            try:
                call(body, timeout=20, metadata=target.headers)
            except grpc.RpcError as error:
                refused.append(f"{error.code()} {error.details()}")
    return refused
