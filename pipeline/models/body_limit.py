"""Responses larger than any answer are cut off while they are read: compressed, a megabyte can hold a gigabyte."""

from typing import Any

MOST_BYTES = 8_000_000


class ResponseTooLarge(Exception):
    """A response has more than MOST_BYTES, decompressed."""


async def limit_body(response: Any) -> None:
    """A hook of httpx's clients: read the body of an answer here, and no further than allowed. Files come by GET."""
    if response.request.method != "POST":
        return
    pieces, size = [], 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > MOST_BYTES:
            await response.aclose()
            raise ResponseTooLarge(f"a response of more than {MOST_BYTES:,} bytes")
        pieces.append(piece)
    # As its own `aread` would.
    response._content = b"".join(pieces)
