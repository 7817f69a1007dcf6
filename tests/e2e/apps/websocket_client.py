"""Talks to a WebSocket echo server at an address, under another host name, and says as JSON what came of it.

Usage: websocket_client.py IP:PORT URL
"""

import asyncio
import json
import sys

import websockets


async def talk(address, url):
    ip, port = address.rsplit(":", 1)
    try:
        async with websockets.connect(url, host=ip, port=int(port), proxy=None, max_size=None) as socket:
            sent = ["hello", "", "ü" * 1000, b"\x00\xff" * 200_000] + [f"message {number}" for number in range(200)]
            for said in sent:
                await socket.send(said)
            echoed = [await socket.recv() for _ in sent]
            await socket.ping()
            await socket.close(4001, "done")
            return {"echoed": echoed == sent, "code": socket.close_code}
    except websockets.InvalidStatus as refusal:
        return {"status": refusal.response.status_code, "body": refusal.response.body.decode()}


print(json.dumps(asyncio.run(asyncio.wait_for(talk(*sys.argv[1:]), 20))))
