"""A WebSocket server that sends back each message, and refuses those who ask for /refused.

Usage: websocket_echo.py IP:0
"""

import asyncio
import http
import json
import sys

import websockets


async def echo(socket):
    async for said in socket:
        await socket.send(said)


def gate(connection, request):
    if request.path == "/refused":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not here\n")
    return None


async def main():
    ip, _ = sys.argv[1].rsplit(":", 1)
    async with websockets.serve(echo, ip, 0, process_request=gate, max_size=None) as server:
        print(json.dumps({"listen": "%s:%d" % server.sockets[0].getsockname()[:2]}), flush=True)
        await asyncio.Future()


asyncio.run(main())
