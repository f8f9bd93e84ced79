// Columns as frames hold them in memory, and their feature ids: numbers by bins, text and codes by look-up.
#pragma once

#include <cstdint>
#include <string>

#include "value_index.h"

namespace attfm {

// The numbers of a field's features, from its start (attfm/data/codecs/codec.py).
constexpr int32_t UNKNOWN = 0, MISSING = 1, FIRST_VALUE = 2;

// What one value is, where it is not a number: its bytes, or that there is none, or that it is something else.
enum class Cell { text, number, missing, other };
struct CellValue {
  const char* bytes;
  int64_t size;
  double number;
};
// Reads the value at a place; `scratch` may hold its bytes until the next call.
using ReadCell = Cell (*)(const void* place, CellValue& value, std::string& scratch);

enum class Kind : uint8_t {
  int8,
  uint8,
  int16,
  uint16,
  int32,
  uint32,
  int64,
  uint64,
  float32,
  float64,
  truth,       // a byte each
  truth_bits,  // a bit each
  text32,      // offsets of 32 bits into bytes
  text64,
  text_views,  // 16 bytes each: size, and the text or where it is
  cells,       // anything, read by a function
  nothing,     // all are missing
};

// The values of one column, row by row.
struct Column {
  Kind kind = Kind::nothing;
  int64_t rows = 0;
  const char* data =
      nullptr;         // of numbers, offsets, views or cells, from the first row on; bits from the buffer's start
  int64_t stride = 0;  // bytes from one to the next
  int64_t offset = 0;  // of the first row, in bits, of validity and truth_bits
  const uint8_t* validity = nullptr;     // bits, or null: all are there
  const char* bytes = nullptr;           // of text
  const char* const* buffers = nullptr;  // of views
  ReadCell read = nullptr;
};

// How the values of a column become the features of one field.
struct FieldReader {
  enum class By : uint8_t { bins, scale, values, codes } by = By::bins;
  int32_t field = 0, start = 0;
  bool is_short = false;          // numbers are rounded to 32 bits first
  const double* edges = nullptr;  // of bins, rising
  int64_t edge_count = 0;
  int64_t bins = 0;                     // how many there are: none where training had no value
  double low = 0, high = 0;             // of scale
  const ValueIndex* index = nullptr;    // of values
  const int32_t* feature_of = nullptr;  // of codes
  int64_t codes = 0;
};

// Of one field and some rows.
struct Told {
  int64_t missing, unknown;
  int64_t absent;  // values that the index does not have: their id is -1
  int64_t wrong;   // that no quick reading is for: infinite numbers, cells of another type, codes out of range
};

struct EncodeTask {
  const Column* columns;  // (count), one for each reader
  const FieldReader* readers;
  int64_t count;
  int64_t first, rows;  // which rows of the columns
  int64_t fields;
  int32_t* ids;   // (rows, fields)
  float* values;  // (rows, fields) or null: only scales need it
  Told* told;     // (count)
  int threads;
};

void encode_columns(const EncodeTask& task);

// Adds the values of a column, with their features, to an index; null and other values are left out.
void learn_values(const Column& column, const int32_t* features, ValueIndex& index);

}  // namespace attfm
