"""Another service, which takes $LATENCY_MS to answer: any path, any number of requests at a time.

python upstream.py PORT
"""

import asyncio
import os
import sys

_LATENCY_S = float(os.environ["LATENCY_MS"]) / 1000


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
    await asyncio.sleep(_LATENCY_S)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(path), path))
    await writer.drain()
    writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
