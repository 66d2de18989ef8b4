"""What can grpcio.aio do at all? One unary method that answers the same bytes to every call, whatever is asked.

python grpc_echo.py PORT METHOD ANSWER_FILE
"""

import asyncio
import sys
from pathlib import Path

import grpc


async def main(port: str, method: str, answer: bytes) -> None:
    async def reply(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return answer

    service, _, name = method.strip("/").partition("/")
    server = grpc.aio.server()
    # Without serializers: messages are bytes on both sides, and nothing is parsed.
    handlers = {name: grpc.unary_unary_rpc_method_handler(reply)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes()))
