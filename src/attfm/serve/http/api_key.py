"""Whether a request brings the key of the service."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from attfm.serve.http.refusals import Refused

# These say nothing about the model, and are asked by what starts and stops the service.
OPEN_PATHS = frozenset({"/health", "/ready"})


class ApiKey:
    """Checks the key in time that does not depend on what is wrong with it.

    It comes as `Authorization: Bearer KEY`, as `X-API-Key: KEY`, or from a browser as the password of
    `Authorization: Basic`.

    Examples
    --------
    >>> key = ApiKey("a-key-that-nobody-guesses")
    >>> key.check({b"x-api-key": b"a-key-that-nobody-guesses"})
    >>> key.check({b"x-api-key": b"another"})
    Traceback (most recent call last):
    attfm.serve.http.refusals.Refused: The API key is missing or wrong: send it as 'Authorization: Bearer KEY'.
    """

    def __init__(self, key: str) -> None:
        self._digest = hashlib.sha256(key.encode()).digest()

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise Refused where none of the headers holds the key."""
        # Digests are of one length, whatever was sent.
        sent = [hmac.compare_digest(hashlib.sha256(key).digest(), self._digest) for key in _keys(headers)]
        if not any(sent):
            raise Refused(
                401, "The API key is missing or wrong: send it as 'Authorization: Bearer KEY'.",
                headers={"www-authenticate": 'Basic realm="attfm", charset="UTF-8"'},
            )  # fmt: skip


def _keys(headers: Mapping[bytes, bytes]) -> list[bytes]:
    keys = [headers.get(b"x-api-key", b"")]
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        keys.append(value.strip())
    elif scheme.lower() == b"basic":
        try:
            keys.append(base64.b64decode(value.strip(), validate=True).partition(b":")[2])
        except binascii.Error:
            keys.append(b"")
    return keys
