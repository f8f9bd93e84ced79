"""The bytes of a text file as UTF-8, whatever its compression and encoding, checked on the way."""

import codecs
import io
import re

from attfm.data.sources.files import DataFile, reading
from attfm.errors import SourceError

_CHUNK = 1 << 20


class TextStream(io.RawIOBase):
    """A file opened for reading, with `ending` after its bytes; `lines` counts the line ends so far.

    Lines that begin with the character `comment` are blank. With `check`, it raises SourceError at the first byte that
    is not of the encoding, and at NUL bytes.
    """

    def __init__(self, file: DataFile, encoding: str, *, check: bool = False, comment: str | None = None) -> None:
        self._name = file.name
        self._encoding = encoding
        self._raw = file.open_text()
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._check = check
        self._comment = None if comment is None else comment.encode()
        self._first = True  # no line has been read yet
        self._line = b""  # the start of a line whose end is not read yet, where there may be comments
        self.ending = b""
        self._ready = b""  # read, but not asked for yet
        self._offset = 0
        self.lines = 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        chunk = self.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes of UTF-8 (all that are left if it is negative); fewer only at the end."""
        # pyarrow's CSV reader needs exactly that: it drops what exceeds the size, and takes a short block that
        # holds only the second half of a line end "\r\n" for the end of the file.
        parts, length = [self._ready], len(self._ready)
        while size < 0 or length < size:
            part = self._next(_CHUNK if size < 0 else size - length)
            if not part:
                break
            parts.append(part)
            length += len(part)
        text = b"".join(parts)
        size = length if size < 0 else size
        text, self._ready = text[:size], text[size:]
        return text

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes without moving on; fewer only at the end."""
        text = self.read(size)
        self._ready = text + self._ready
        return text

    def _next(self, size: int) -> bytes:
        """Return about `size` more bytes; none at the end."""
        while True:
            with reading(self._name):
                chunk = bytes(self._raw.read(size))
            text = self._text(chunk) if chunk else self._end()
            if self._comment is not None:
                text = self._without_comments(text, last=not chunk)
            if text or not chunk:
                return text

    def _without_comments(self, text: bytes, *, last: bool) -> bytes:
        """Return the whole lines so far, comments without their text: they still count as lines."""
        text = self._line + text
        end = len(text) if last else text.rfind(b"\n") + 1
        text, self._line = text[:end], text[end:]
        mark = re.escape(self._comment or b"")
        start = rb"\A(?:\xef\xbb\xbf)?" if self._first else rb"\A"
        self._first = self._first and not text
        return re.sub(rb"(?m)(?:^|%s)[ \t]*%s[^\r\n]*" % (start, mark), b"", text)

    def _text(self, chunk: bytes) -> bytes:
        text = chunk
        if self._check or self._encoding != "utf-8":
            pending = len(self._decoder.getstate()[0])
            try:
                decoded = self._decoder.decode(chunk)
            except UnicodeDecodeError as error:
                raise self._not_text(error, chunk, pending) from None
            if self._encoding != "utf-8":
                text = decoded.encode("utf-8")
        if self._check and b"\0" in text:
            line = self.lines + text[: text.index(b"\0")].count(b"\n") + 1
            raise SourceError(
                f"{self._name} has a NUL byte in line {line}: it is damaged, or not text"
                " (UTF-16 text can be read by encoding='utf-16')."
            )
        self._offset += len(chunk)
        self.lines += text.count(b"\n")
        return text

    def _end(self) -> bytes:
        if self._check and self._decoder.getstate()[0]:
            raise SourceError(f"{self._name} ends in the middle of a character: it is cut short.")
        ending, self.ending = self.ending, b""
        self.lines += ending.count(b"\n")
        return ending

    def _not_text(self, error: UnicodeDecodeError, chunk: bytes, pending: int) -> SourceError:
        start = error.start - pending
        line = self.lines + chunk[: max(start, 0)].count(b"\n") + 1
        bad = error.object[error.start]
        other = "utf-16" if self._offset == 0 and chunk[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
        return SourceError(
            f"{self._name} is not {self._encoding.upper()} text: byte 0x{bad:02x} at offset {self._offset + start} "
            f"(line {line}). Convert it, or name its encoding, for example encoding='{other}'."
        )


def known_encoding(encoding: str) -> str:
    """Return Python's own name of a text encoding; raise SourceError if there is none."""
    try:
        "".encode(encoding)
    except LookupError:
        raise SourceError(f"encoding={encoding!r} is unknown: give for example 'utf-8' or 'latin-1'.") from None
    name = codecs.lookup(encoding).name
    return "utf-8" if name in ("utf-8-sig", "ascii") else name
