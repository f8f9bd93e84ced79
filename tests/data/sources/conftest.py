"""What the tests of sources share."""

from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path: Path):
    def write_file(content: str | bytes, name: str = "t.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file
