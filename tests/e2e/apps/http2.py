"""An HTTP/2 application without TLS, on the h2 library: it answers with the request as JSON.

Usage: http2.py IP:0 [--max-streams N]. The first part of the path says what to do; see `answer`.
"""

import argparse
import asyncio
import json

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

accepted = 0
gathered = []


class Application(asyncio.Protocol):
    def __init__(self, max_streams):
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False)
        self.connection, self.streams, self.max_streams = h2.connection.H2Connection(config), {}, max_streams

    def connection_made(self, transport):
        global accepted
        accepted += 1
        self.transport, self.number = transport, accepted
        self.connection.local_settings.max_concurrent_streams = self.max_streams
        self.connection.local_settings.acknowledge()
        self.connection.initiate_connection()
        self.flush()

    def flush(self):
        self.transport.write(self.connection.data_to_send())

    def data_received(self, data):
        try:
            events = self.connection.receive_data(data)
        except h2.exceptions.ProtocolError:
            self.flush()
            return self.transport.close()
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                self.streams[event.stream_id] = {"fields": [list(field) for field in event.headers], "body": "", "trailers": []}
            elif isinstance(event, h2.events.DataReceived):
                self.streams[event.stream_id]["body"] += event.data.decode("latin-1")
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                self.streams[event.stream_id]["trailers"] = [list(field) for field in event.headers]
            elif isinstance(event, h2.events.StreamEnded):
                self.answer(event.stream_id, self.streams.pop(event.stream_id))
        self.flush()

    def answer(self, stream, said):
        pseudo = dict(field for field in said["fields"] if field[0].startswith(":"))
        said.update(name="http2", version="HTTP/2", method=pseudo[":method"], target=pseudo[":path"],
                    connection=self.number)  # fmt: skip
        what, _, argument = pseudo[":path"].strip("/").partition("/")
        body = json.dumps(said).encode()
        send = self.connection.send_headers
        if what == "hints":
            send(stream, [(":status", "103"), ("link", "</a>")])
        if what == "status":
            return send(stream, [(":status", argument), ("etag", '"x"')], end_stream=True)
        if what == "trailers":
            send(stream, [(":status", "200"), ("trailer", "x-sum")])
            self.connection.send_data(stream, b"data")
            return send(stream, [("x-sum", "42")], end_stream=True)
        if what == "reset":
            return self.connection.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        if what == "cut":
            send(stream, [(":status", "200")])
            self.connection.send_data(stream, b"only this")
            return self.connection.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        if what == "gather":
            gathered.append((self, stream))
            return len(gathered) == int(argument) and [there.whole(at, b"gathered\n") for there, at in gathered]
        if what == "accepted":
            body = json.dumps(accepted).encode()
        self.whole(stream, body)

    def whole(self, stream, body):
        fields = [(":status", "200"), ("content-type", "application/json"), ("content-length", str(len(body)))]
        self.connection.send_headers(stream, [*fields, ("x-app", "http2"), ("x-pillion-reason", "forged")])
        self.connection.send_data(stream, body, end_stream=True)
        self.flush()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--max-streams", type=int, default=100)
    arguments = parser.parse_args()
    ip, _ = arguments.address.rsplit(":", 1)
    server = await asyncio.get_running_loop().create_server(lambda: Application(arguments.max_streams), ip, 0)
    print(json.dumps({"listen": "%s:%d" % server.sockets[0].getsockname()}), flush=True)
    await server.serve_forever()


asyncio.run(main())
