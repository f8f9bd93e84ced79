"""Where a request of HTTP/1.1 ends, told by one pattern: for those that are written plainly, and are here whole."""

import re
from typing import NamedTuple

# A header whose meaning changes where a request ends, or what becomes of its connection, is not plain; nor is one that
# goes on in another line, or that ends without a carriage return. What is not plain is left to the parser.
_HEADER = rb"(?!(?i:content-|transfer-|connection|upgrade|expect))[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n"
_KINDS = rb"(?i:content-type:[^\r\n\0]*\r\n|connection:[ \t]*keep-alive[ \t]*\r\n)"
_HEADERS = rb"(?:" + _HEADER + rb"|" + _KINDS + rb")*+"
_PLAIN = re.compile(
    rb"(GET|HEAD|POST) (/[!-~]*) HTTP/1\.1\r\n"
    + _HEADERS
    + rb"(?:(?i:content-length):[ \t]*([0-9]{1,9})[ \t]*\r\n"
    + _HEADERS
    + rb")?\r\n"
)


class PlainRequest(NamedTuple):
    """A whole request.

    method, path : as written, the path without a query; end : where the next one begins
    """

    method: bytes
    path: bytes
    end: int


def plain_request(data: bytes, start: int = 0) -> PlainRequest | None:
    """Return the request that begins at a place; None where it is not plain, or not all of it is here.

    Examples
    --------
    >>> plain_request(b"POST /predict HTTP/1.1\\r\\ncontent-length: 2\\r\\n\\r\\n{}POST")
    PlainRequest(method=b'POST', path=b'/predict', end=47)
    """
    found = _PLAIN.match(data, start)
    if found is None:
        return None
    end = found.end() + int(found[3] or 0)
    return PlainRequest(found[1], found[2].partition(b"?")[0], end) if end <= len(data) else None
