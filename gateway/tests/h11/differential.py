"""Says what h11 makes of each request on standard input, one JSON line for each.

A request is its length in four bytes, big endian, and its bytes. The answer to one that h11 refuses is
{"refused": why}; to one whose head is incomplete, {"incomplete": true}; to any other
{"method", "target", "version", "headers", "framing", "body": {"payload", "rest", "state"}}, where bytes
are written as Latin-1 text, "rest" counts the bytes after the message, and "state" is "complete",
"incomplete" or "refused".
"""

import json
import sys

import h11

REQUEST_BYTES_MAX = 1 << 20


def framing(request):
    """As RFC 9112 has it; h11 itself keeps this to itself."""
    names = dict(request.headers)
    if b"transfer-encoding" in names:
        return "chunked"
    if b"content-length" in names:
        return int(names[b"content-length"])
    return "none"


def body(connection, data):
    payload = 0
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return {"payload": payload, "rest": 0, "state": "refused"}
        if isinstance(event, h11.Data):
            payload += len(event.data)
        elif isinstance(event, h11.EndOfMessage):
            rest = connection.trailing_data[0]
            return {"payload": payload, "rest": len(rest), "state": "complete"}
        else:
            return {"payload": payload, "rest": 0, "state": "incomplete"}


def verdict(data):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_BYTES_MAX)
    try:
        connection.receive_data(data)
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        return {"refused": str(error)}
    if not isinstance(event, h11.Request):
        return {"incomplete": True}
    return {
        "method": event.method.decode("latin-1"),
        "target": event.target.decode("latin-1"),
        "version": event.http_version.decode("latin-1"),
        "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in event.headers],
        "framing": framing(event),
        "body": body(connection, data),
    }


def main():
    read, write = sys.stdin.buffer.read, sys.stdout.write
    while len(header := read(4)) == 4:
        write(json.dumps(verdict(read(int.from_bytes(header, "big")))))
        write("\n")


main()
