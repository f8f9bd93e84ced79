#include "columns.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <type_traits>
#include <vector>

#include "threads.h"

namespace attfm {
namespace {

constexpr int64_t BLOCK = 1024;  // rows whose ids stay in the cache from one column to the next
constexpr double NOTHING = std::numeric_limits<double>::quiet_NaN();

bool is_there(const Column& column, int64_t row) {
  if (column.validity == nullptr) return true;
  const int64_t bit = column.offset + row;
  return column.validity[bit >> 3] >> (bit & 7) & 1;
}

// Calls put(row, value, there) for each row of a column of numbers; false where it is none.
template <class Put>
bool each_number(const Column& column, int64_t first, int64_t stop, Put put) {
  const auto all = [&](auto zero) {
    using T = decltype(zero);
    const char* place = column.data + first * column.stride;
    for (int64_t row = first; row < stop; ++row, place += column.stride) {
      T value;
      std::memcpy(&value, place, sizeof(T));
      put(row, value, is_there(column, row));
    }
    return true;
  };
  switch (column.kind) {
    case Kind::int8:
      return all(int8_t{});
    case Kind::uint8:
      return all(uint8_t{});
    case Kind::int16:
      return all(int16_t{});
    case Kind::uint16:
      return all(uint16_t{});
    case Kind::int32:
      return all(int32_t{});
    case Kind::uint32:
      return all(uint32_t{});
    case Kind::int64:
      return all(int64_t{});
    case Kind::uint64:
      return all(uint64_t{});
    case Kind::float32:
      return all(float{});
    case Kind::float64:
      return all(double{});
    case Kind::truth:
      for (int64_t row = first; row < stop; ++row)
        put(row, column.data[row * column.stride] != 0, is_there(column, row));
      return true;
    case Kind::truth_bits:
      for (int64_t row = first; row < stop; ++row) {
        const int64_t bit = column.offset + row;
        put(row, bool(uint8_t(column.data[bit >> 3]) >> (bit & 7) & 1), is_there(column, row));
      }
      return true;
    default:
      return false;
  }
}

// Calls put(row, bytes, size) for each text, miss(row, cell) for each row that has none; false where it holds none.
template <class Put, class Miss>
bool each_text(const Column& column, int64_t first, int64_t stop, Put put, Miss miss) {
  const auto by_offsets = [&](auto zero) {
    using T = decltype(zero);
    const T* offsets = reinterpret_cast<const T*>(column.data);
    for (int64_t row = first; row < stop; ++row) {
      if (is_there(column, row))
        put(row, column.bytes + offsets[row], int64_t(offsets[row + 1] - offsets[row]));
      else
        miss(row, Cell::missing);
    }
    return true;
  };
  switch (column.kind) {
    case Kind::text32:
      return by_offsets(int32_t{});
    case Kind::text64:
      return by_offsets(int64_t{});
    case Kind::text_views:
      for (int64_t row = first; row < stop; ++row) {
        if (!is_there(column, row)) {
          miss(row, Cell::missing);
          continue;
        }
        const char* view = column.data + row * 16;
        int32_t size, buffer, start;
        std::memcpy(&size, view, 4);
        std::memcpy(&buffer, view + 8, 4);
        std::memcpy(&start, view + 12, 4);
        put(row, size <= 12 ? view + 4 : column.buffers[buffer] + start, int64_t(size));
      }
      return true;
    case Kind::cells: {
      std::string scratch;
      CellValue value{};
      for (int64_t row = first; row < stop; ++row) {
        const Cell cell = column.read(column.data + row * column.stride, value, scratch);
        if (cell == Cell::text)
          put(row, value.bytes, value.size);
        else
          miss(row, cell);
      }
      return true;
    }
    default:
      return false;
  }
}

// What an index knows a number by: the eight bytes of an integer, or of a float.
template <class T>
bool key_of(T value, char (&key)[8]) {
  if constexpr (std::is_floating_point_v<T>) {
    const double number = double(value);
    std::memcpy(key, &number, 8);
    return !std::isnan(number);
  } else {
    const int64_t number = int64_t(value);
    std::memcpy(key, &number, 8);
    return true;
  }
}

// As doubles, NaN where there is none; other than a number is told.
void read_doubles(const Column& column, int64_t first, int64_t stop, bool is_short, double* x, Told& told) {
  const auto number = [&](int64_t row, auto value, bool there) { x[row - first] = there ? double(value) : NOTHING; };
  if (!each_number(column, first, stop, number)) {
    std::string scratch;
    CellValue value{};
    for (int64_t row = first; row < stop; ++row) {
      Cell cell = Cell::missing;
      if (column.kind == Kind::cells) cell = column.read(column.data + row * column.stride, value, scratch);
      told.wrong += cell != Cell::number && cell != Cell::missing;
      x[row - first] = cell == Cell::number ? value.number : NOTHING;
    }
  }
  if (is_short)
    for (int64_t n = 0; n < stop - first; ++n) x[n] = double(float(x[n]));
  for (int64_t n = 0; n < stop - first; ++n) told.wrong += std::abs(x[n]) == INFINITY;
}

// Number of edges that are at most x, for LANES values at a time: their searches don't wait for one another, and no
// branch can be guessed wrong. NaN is past all edges or before them, as it may be.
template <int LANES>
void count_at_most(const double* edges, int64_t count, const double* x, int32_t* found) {
  const double* base[LANES];
  for (int n = 0; n < LANES; ++n) base[n] = edges;
  while (count > 1) {
    const int64_t half = count / 2;
    for (int n = 0; n < LANES; ++n) base[n] += half & -int64_t(base[n][half - 1] <= x[n]);
    count -= half;
  }
  for (int n = 0; n < LANES; ++n) found[n] = int32_t(base[n] - edges) + (count == 1 && *base[n] <= x[n]);
}

struct Block {
  const EncodeTask& task;
  int64_t first, stop;  // rows of the columns

  int32_t& id(const FieldReader& reader, int64_t row) const {
    return task.ids[(row - task.first) * task.fields + reader.field];
  }
  void put(const FieldReader& reader, int64_t row, int32_t feature, Told& told) const {
    told.missing += feature == MISSING;
    told.unknown += feature == UNKNOWN;
    id(reader, row) = reader.start + feature;
  }

  void by_bins(const Column& column, const FieldReader& reader, Told& told) const {
    double x[BLOCK];
    int32_t found[BLOCK];
    const int64_t rows = stop - first;
    read_doubles(column, first, stop, reader.is_short, x, told);
    int64_t n = 0;
    for (; n + 8 <= rows; n += 8) count_at_most<8>(reader.edges, reader.edge_count, x + n, found + n);
    for (; n < rows; ++n) count_at_most<1>(reader.edges, reader.edge_count, x + n, found + n);
    for (n = 0; n < rows; ++n) {
      const int32_t feature = reader.bins == 0 ? UNKNOWN : FIRST_VALUE + found[n];
      put(reader, first + n, x[n] != x[n] ? MISSING : feature, told);
    }
  }

  // As ScaledCodec does it: x is 1 of a missing value, 0 where training had one value only or none.
  void by_scale(const Column& column, const FieldReader& reader, Told& told) const {
    double x[BLOCK];
    read_doubles(column, first, stop, reader.is_short, x, told);
    const double span = reader.high - reader.low;
    float* values = task.values + (first - task.first) * task.fields + reader.field;
    for (int64_t n = 0; n < stop - first; ++n) {
      const bool missing = x[n] != x[n];
      const float scaled = missing ? 1.0f : reader.low < reader.high ? float((x[n] - reader.low) / span) : 0.0f;
      told.wrong += !std::isfinite(scaled);
      values[n * task.fields] = scaled;
      put(reader, first + n, missing ? MISSING : FIRST_VALUE, told);
    }
  }

  void by_values(const Column& column, const FieldReader& reader, Told& told) const {
    std::shared_lock<std::shared_mutex> reading(reader.index->lock);
    const auto look_up = [&](int64_t row, const char* bytes, int64_t size) {
      const int32_t feature = reader.index->find(bytes, size);
      if (feature < 0) {
        ++told.absent;
        id(reader, row) = -1;
      } else {
        put(reader, row, feature, told);
      }
    };
    const auto miss = [&](int64_t row, Cell cell) {
      told.wrong += cell != Cell::missing;
      put(reader, row, MISSING, told);
    };
    if (each_text(column, first, stop, look_up, miss)) return;
    const auto number = [&](int64_t row, auto value, bool there) {
      char key[8];
      if (there && key_of(value, key))
        look_up(row, key, 8);
      else
        miss(row, Cell::missing);
    };
    if (each_number(column, first, stop, number)) return;
    for (int64_t row = first; row < stop; ++row) miss(row, Cell::missing);
  }

  void by_codes(const Column& column, const FieldReader& reader, Told& told) const {
    each_number(column, first, stop, [&](int64_t row, auto value, bool there) {
      const int64_t code = there ? int64_t(value) : -1;
      const bool known = code >= 0 && code < reader.codes;
      told.wrong += code >= reader.codes;
      put(reader, row, known ? reader.feature_of[code] : MISSING, told);
    });
  }
};

struct Job {
  const EncodeTask& task;
  std::mutex adding;
};

void encode_part(void* context, int part, int parts) {
  Job& job = *static_cast<Job*>(context);
  const EncodeTask& task = job.task;
  std::vector<Told> told(size_t(task.count), Told{});
  const int64_t blocks = (task.rows + BLOCK - 1) / BLOCK;
  for (int64_t b = blocks * part / parts; b < blocks * (part + 1) / parts; ++b) {
    const Block block{task, task.first + b * BLOCK, task.first + std::min(task.rows, (b + 1) * BLOCK)};
    for (int64_t n = 0; n < task.count; ++n) {
      const Column& column = task.columns[n];
      const FieldReader& reader = task.readers[n];
      switch (reader.by) {
        case FieldReader::By::bins:
          block.by_bins(column, reader, told[size_t(n)]);
          break;
        case FieldReader::By::scale:
          block.by_scale(column, reader, told[size_t(n)]);
          break;
        case FieldReader::By::values:
          block.by_values(column, reader, told[size_t(n)]);
          break;
        case FieldReader::By::codes:
          block.by_codes(column, reader, told[size_t(n)]);
          break;
      }
    }
  }
  std::lock_guard<std::mutex> adding(job.adding);
  for (int64_t n = 0; n < task.count; ++n) {
    const Told& own = told[size_t(n)];
    task.told[n].missing += own.missing;
    task.told[n].unknown += own.unknown;
    task.told[n].absent += own.absent;
    task.told[n].wrong += own.wrong;
  }
}

}  // namespace

void encode_columns(const EncodeTask& task) {
  Job job{task, {}};
  const int64_t blocks = (task.rows + BLOCK - 1) / BLOCK;
  run_parts(int(std::max<int64_t>(1, std::min<int64_t>(task.threads, blocks))), encode_part, &job);
}

void learn_values(const Column& column, const int32_t* features, ValueIndex& index) {
  const auto add = [&](int64_t row, const char* bytes, int64_t size) { index.add(bytes, size, features[row]); };
  if (each_text(column, 0, column.rows, add, [](int64_t, Cell) {})) return;
  each_number(column, 0, column.rows, [&](int64_t row, auto value, bool there) {
    char key[8];
    if (there && key_of(value, key)) add(row, key, 8);
  });
}

}  // namespace attfm
