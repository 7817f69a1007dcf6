"""Mail: `smtp.py serve IP:PORT` takes messages (RFC 5321) and prints each as JSON; `smtp.py send HOST PORT TEXT` sends one.

The server greets first and is slow to trust: it checks the order of commands. The client is Python's own `smtplib`.
"""

import asyncio
import json
import smtplib
import sys
import time
from email.message import EmailMessage


async def serve_client(reader, writer):
    def reply(text):
        writer.write(f"{text}\r\n".encode())

    sender, recipients = None, []
    reply("220 mail.shop ESMTP ready")
    while line := (await reader.readline()).decode().strip():
        verb = line.split(" ")[0].upper()
        if verb == "EHLO":
            reply("250-mail.shop\r\n250 8BITMIME")
        elif verb == "MAIL":
            sender = line.partition("<")[2].partition(">")[0]
            reply("250 sender ok")
        elif verb == "RCPT" and sender:
            recipients.append(line.partition("<")[2].partition(">")[0])
            reply("250 recipient ok")
        elif verb == "DATA" and recipients:
            reply("354 go ahead")
            message = (await reader.readuntil(b"\r\n.\r\n")).decode()
            print(json.dumps({"from": sender, "to": recipients, "message": message}), flush=True)
            sender, recipients = None, []
            reply("250 taken")
        elif verb == "QUIT":
            reply("221 bye")
            break
        else:
            reply("503 not now")
    writer.close()


async def serve(address):
    host, _, port = address.rpartition(":")
    server = await asyncio.start_server(serve_client, host.strip("[]"), int(port))
    print(json.dumps({"listen": address}), flush=True)
    await server.serve_forever()


def send(host, port, text):
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@client.shop", "b@mail.shop", "greetings"
    message.set_content(text)
    start = time.perf_counter()
    # A name of its own: smtplib would else ask DNS for one.
    with smtplib.SMTP(host, int(port), local_hostname="client.shop", timeout=20) as connection:
        greeted = (time.perf_counter() - start) * 1000
        refused = connection.send_message(message)
    print(json.dumps({"refused": refused, "greeted_after_milliseconds": greeted}))


if sys.argv[1] == "serve":
    asyncio.run(serve(sys.argv[2]))
else:
    send(*sys.argv[2:])
