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


class TooLargeError(ProtocolError):
    """A frame whose payload is larger than the reader takes, while the stream itself is sound.

    Prefix and header are off the buffer; after `rest` more bytes the next frame begins. `head` is the header.
    """

    def __init__(self, head: Dict[str, Any], rest: int, limit: int) -> None:
        super().__init__(f"a payload of {rest} bytes, at most {limit} are taken")
        self.head, self.rest = head, rest


class Frame(NamedTuple):
    """One message: `head` is the JSON object, `body` the raw payload."""

    head: Dict[str, Any]
    body: bytes


def front(head: Dict[str, Any], size: int) -> bytes:
    """All of a frame but its payload of `size` bytes, which is sent after it without being copied together.

    Raises ProtocolError when the frame is larger than the other side accepts.
    """
    text = json.dumps(head, separators=(",", ":")).encode()
    if len(text) > MAX_HEADER or size > MAX_PAYLOAD:
        raise ProtocolError(f"frame too large: header {len(text)}, payload {size} bytes")
    return HEAD.pack(MAGIC, len(text), size) + text


def pack(head: Dict[str, Any], body: bytes = b"") -> bytes:
    """One frame as bytes. Raises ProtocolError when it is larger than the other side accepts."""
    return front(head, len(body)) + body


def take(buffer: bytearray, limit: int = MAX_PAYLOAD) -> Optional[Frame]:
    """Cut one whole frame off the front of `buffer`; None while bytes are missing.

    Raises ProtocolError when the front of the buffer is not a frame, TooLargeError when its payload is over `limit`.
    """
    start = bytes(buffer[: len(MAGIC)])
    if start != MAGIC[: len(start)]:
        shown = bytes(buffer[:60])
        raise ProtocolError(f"not a frame: {shown!r}; does the login shell print a banner?")
    if len(buffer) < HEAD.size:
        return None
    _, head, body = HEAD.unpack_from(buffer)
    if head > MAX_HEADER:
        raise ProtocolError(f"frame too large: header {head}, payload {body} bytes")
    begin = HEAD.size + head
    if len(buffer) < begin or (body <= limit and len(buffer) < begin + body):
        return None
    fields = _fields(bytes(buffer[HEAD.size : begin]))
    if body > limit:
        del buffer[:begin]
        raise TooLargeError(fields, body, limit)
    frame = Frame(fields, bytes(memoryview(buffer)[begin : begin + body]))
    del buffer[: begin + body]
    return frame


def _fields(text: bytes) -> Dict[str, Any]:
    try:
        fields = json.loads(text.decode())
    except (ValueError, RecursionError) as e:
        raise ProtocolError(f"the header is not JSON: {e}") from None
    if not isinstance(fields, dict):
        raise ProtocolError("the header is not a JSON object")
    return fields
