"""Make the bundled Adult table from the UCI files: python scripts/make_adult.py FOLDER_WITH_adult.data

The files may be gzipped. Their sums are checked, so that the table is the one that the figures belong to.
"""

import argparse
import gzip
import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

SHA256 = {
    "adult.data": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "adult.test": "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
}
NUMERIC = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
NAMES = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship",
    "race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
)  # fmt: skip
OUTPUT = Path(__file__).parents[1] / "src" / "attfm" / "data"


def read(folder: Path, name: str) -> bytes:
    """Return the file's bytes, unpacked and checked."""
    packed = folder / f"{name}.gz"
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise SystemExit(f"{name}: sha256 is {digest}, expected {SHA256[name]}: this is another file.")
    return content


def table(content: bytes) -> pa.Table:
    """Return the rows as a table: `?` is missing, and the test file's comment line and dotted labels are mended."""
    lines = [line for line in content.decode("ascii").splitlines() if line and not line.startswith("|")]
    text = "\n".join(line.replace(", ", ",").removesuffix(".") for line in lines)
    types = {name: pa.int32() if name in NUMERIC else pa.string() for name in NAMES}
    return pa.csv.read_csv(
        io.BytesIO(text.encode()),
        read_options=pa.csv.ReadOptions(column_names=NAMES),
        convert_options=pa.csv.ConvertOptions(column_types=types, null_values=["?"], strings_can_be_null=True),
    )


def main() -> None:
    """Write adult.parquet and adult-test.parquet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name, file in {"adult.data": "adult.parquet", "adult.test": "adult-test.parquet"}.items():
        rows = table(read(folder, name))
        pa.parquet.write_table(rows, OUTPUT / file, compression="zstd", compression_level=19, store_schema=False)
        print(f"{file}: {rows.num_rows} rows, {(OUTPUT / file).stat().st_size} bytes")


if __name__ == "__main__":
    main()
