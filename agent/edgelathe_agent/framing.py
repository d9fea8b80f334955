"""Frames: a JSON header and a raw payload, both with their lengths in front. Bytes in, frames out.

    offset  size  field
    0       4     magic b"ELA1"
    4       4     length of the header in bytes, unsigned big-endian
    8       8     length of the payload in bytes, unsigned big-endian
    16      ...   header: one JSON object in UTF-8
    ...     ...   payload: raw bytes

A function of bytes only: no file, no socket, no clock.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Dict, NamedTuple, Optional

MAGIC = b"ELA1"
HEAD = struct.Struct(">4sIQ")
MAX_HEADER = 16 << 20
MAX_PAYLOAD = 256 << 20


class ProtocolError(Exception):
    """The bytes are no frame, or a frame that this version does not know."""


class Frame(NamedTuple):
    """One message: `head` is the JSON object, `body` the raw payload."""

    head: Dict[str, Any]
    body: bytes


def pack(head: Dict[str, Any], body: bytes = b"") -> bytes:
    """One frame as bytes. Raises ProtocolError when it is larger than the other side accepts."""
    text = json.dumps(head, separators=(",", ":")).encode()
    if len(text) > MAX_HEADER or len(body) > MAX_PAYLOAD:
        raise ProtocolError("frame too large: header %d, payload %d bytes" % (len(text), len(body)))
    return HEAD.pack(MAGIC, len(text), len(body)) + text + body


def take(buffer: bytearray) -> Optional[Frame]:
    """Cut one whole frame off the front of `buffer`; None while bytes are missing.

    Raises ProtocolError when the front of the buffer is not a frame.
    """
    start = bytes(buffer[: len(MAGIC)])
    if start != MAGIC[: len(start)]:
        shown = bytes(buffer[:60])
        raise ProtocolError("not a frame: %r; does the login shell print a banner?" % (shown,))
    if len(buffer) < HEAD.size:
        return None
    _, head, body = HEAD.unpack_from(buffer)
    if head > MAX_HEADER or body > MAX_PAYLOAD:
        raise ProtocolError("frame too large: header %d, payload %d bytes" % (head, body))
    end = HEAD.size + head + body
    if len(buffer) < end:
        return None
    try:
        fields = json.loads(bytes(buffer[HEAD.size : HEAD.size + head]).decode())
    except ValueError as e:
        raise ProtocolError("the header is not JSON: %s" % e) from None
    if not isinstance(fields, dict):
        raise ProtocolError("the header is not a JSON object")
    frame = Frame(fields, bytes(memoryview(buffer)[HEAD.size + head : end]))
    del buffer[:end]
    return frame
