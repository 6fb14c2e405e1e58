"""Talks to an echo server at the URL given, and checks what comes back. Ends with 0 where all is well."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

MIB = 1 << 20


def check(what, good):
    print(f"{what}: {'as it should be' if good else 'WRONG'}")
    if not good:
        sys.exit(1)


async def echoes(socket):
    for what, message in [
        ("text", "h\u00e9llo \U0001f600"),
        ("no text", ""),
        ("binary", bytes(range(256))),
        ("64 KiB of text", "x" * 65536),
        ("1 MiB", bytes(range(256)) * (MIB // 256)),
    ]:
        await socket.send(message)
        check(what, await socket.recv() == message)
    await socket.send(["frag", "ment", "ed"])
    check("fragmented text", await socket.recv() == "fragmented")
    await socket.send([b"\x00", b"", b"\xff"])
    check("fragmented binary", await socket.recv() == b"\x00\xff")
    pong = await socket.ping("are you there")
    check("ping", await pong >= 0)
    for n in range(1000):
        await socket.send(str(n))
    check("1000 in order", [await socket.recv() for _ in range(1000)] == [str(n) for n in range(1000)])


async def closes_with(socket, code, reason):
    await socket.close(code, reason)
    check(f"close {code}", (socket.close_code, socket.close_reason) == (code, reason))


async def is_closed_with(socket, code):
    try:
        await socket.recv()
    except ConnectionClosed:
        pass
    check(f"closed with {code}", socket.close_code == code)


async def main(url):
    # Offers compression, as it does by default; the gateway may do without.
    async with connect(url, max_size=None) as socket:
        await echoes(socket)
        # A while in which it answers the gateway's Pings and says nothing else.
        await asyncio.sleep(0.3)
        await closes_with(socket, 4001, "enough")
    async with connect(url, compression=None) as socket:
        await socket.send("x" * (MIB + 1))
        await is_closed_with(socket, 1009)
    async with connect(url, compression=None) as socket:
        await closes_with(socket, 1000, "")


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 50))
