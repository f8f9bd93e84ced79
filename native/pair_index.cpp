#include "pair_index.h"

#include <algorithm>
#include <cstring>

#include "threads.h"

namespace attfm {
namespace {

uint64_t scatter(uint64_t key) { return key * 0x9e3779b97f4a7c15ull; }

// A hash set of keys, emptied at once by raising the stamp.
struct NumberedKeys {
  struct Cell {
    uint64_t key;
    uint32_t stamp, number;
  };
  std::vector<Cell> cells;
  int shift;
  uint32_t stamp = 0;

  explicit NumberedKeys(int64_t keys) {
    int bits = 6;
    while ((int64_t(1) << bits) < 2 * keys) ++bits;
    cells.assign(size_t(1) << bits, Cell{0, 0, 0});
    shift = 64 - bits;
  }
  void clear() { ++stamp; }
  // The number of the key; `next` if it is new, and then it is kept.
  uint32_t number(uint64_t key, uint32_t next) {
    const size_t mask = cells.size() - 1;
    for (size_t at = scatter(key) >> shift;; at = (at + 1) & mask) {
      Cell& cell = cells[at];
      if (cell.stamp != stamp) {
        cell = {key, stamp, next};
        return next;
      }
      if (cell.key == key) return cell.number;
    }
  }
};

// Cells of a direct table: one cell for each possible pair, while that still fits in L2.
constexpr int64_t DIRECT_CELLS = 1 << 17;

struct PairJob {
  const int32_t* columns;  // (fields, batch) slots
  const int32_t *lowest, *width;
  int64_t batch;
  const int32_t *first, *second;
  int64_t pairs;
  uint16_t* index;
  std::vector<std::vector<int32_t>> members;  // of each part
  std::vector<int32_t> counts;                // of each pair
};

void find_part(void* context, int part, int parts) {
  PairJob& job = *static_cast<PairJob*>(context);
  const int64_t batch = job.batch, start = job.pairs * part / parts, stop = job.pairs * (part + 1) / parts;
  std::vector<int32_t>& members = job.members[part];
  std::vector<uint32_t> direct(DIRECT_CELLS, 0);  // stamp of the pair in the high half, number in the low half
  NumberedKeys hashed(batch);
  uint32_t stamp = 0;
  size_t size = 0;
  for (int64_t p = start; p < stop; ++p) {
    const int32_t i = job.first[p], j = job.second[p];
    const int32_t *x = job.columns + i * batch, *y = job.columns + j * batch;
    const int32_t low_x = job.lowest[i], low_y = job.lowest[j];
    const int64_t width = job.width[j], cells = int64_t(job.width[i]) * width;
    uint16_t* index = job.index + p * batch;
    members.resize(size + 2 * batch + 2);
    int32_t* next_member = members.data() + size;
    uint32_t next = 0;
    if (cells <= DIRECT_CELLS) {
      if (++stamp == 65536) {
        std::fill(direct.begin(), direct.end(), 0);
        stamp = 1;
      }
      for (int64_t row = 0; row < batch; ++row) {
        uint32_t& cell = direct[(x[row] - low_x) * width + (y[row] - low_y)];
        // Without a branch: whether a pair is new is hard to foresee.
        const bool is_new = cell >> 16 != stamp;
        const uint32_t value = is_new ? stamp << 16 | next : cell;
        cell = value;
        index[row] = uint16_t(value);
        next_member[2 * next] = x[row];
        next_member[2 * next + 1] = y[row];
        next += is_new;
      }
    } else {
      hashed.clear();
      for (int64_t row = 0; row < batch; ++row) {
        const uint32_t number = hashed.number(uint64_t(uint32_t(x[row])) << 32 | uint32_t(y[row]), next);
        index[row] = uint16_t(number);
        next_member[2 * next] = x[row];
        next_member[2 * next + 1] = y[row];
        next += number == next;
      }
    }
    job.counts[p] = int32_t(next);
    size += 2 * size_t(next);
  }
  members.resize(size);
}

}  // namespace

std::vector<int64_t> find_slots(const int32_t* ids, int64_t batch, int64_t fields, int64_t features, int32_t* slots) {
  std::vector<int64_t> rows;
  const int64_t count = batch * fields;
  rows.reserve(size_t(std::min(count, features)));
  if (features <= 16 * count) {
    std::vector<int32_t> number(size_t(features), -1);
    for (int64_t f = 0; f < fields; ++f) {
      for (int64_t row = 0; row < batch; ++row) {
        const int64_t at = row * fields + f;
        int32_t& n = number[size_t(ids[at])];
        if (n < 0) {
          n = int32_t(rows.size());
          rows.push_back(ids[at]);
        }
        slots[at] = n;
      }
    }
    return rows;
  }
  NumberedKeys hashed(count);
  hashed.clear();
  for (int64_t f = 0; f < fields; ++f) {
    for (int64_t row = 0; row < batch; ++row) {
      const int64_t at = row * fields + f;
      const uint32_t next = uint32_t(rows.size());
      const uint32_t n = hashed.number(uint64_t(ids[at]), next);
      if (n == next) rows.push_back(ids[at]);
      slots[at] = int32_t(n);
    }
  }
  return rows;
}

std::vector<int64_t> count_distinct(const int32_t* ids, int64_t batch, int64_t fields) {
  std::vector<int64_t> counts(size_t(fields), 0);
  std::vector<uint8_t> seen;
  NumberedKeys hashed(batch);
  for (int64_t f = 0; f < fields; ++f) {
    int32_t low = batch > 0 ? ids[f] : 0, high = low;
    for (int64_t row = 0; row < batch; ++row) {
      low = std::min(low, ids[row * fields + f]);
      high = std::max(high, ids[row * fields + f]);
    }
    uint32_t count = 0;
    if (int64_t(high) - low < 64 * batch) {
      seen.assign(size_t(high - low + 1), 0);
      for (int64_t row = 0; row < batch; ++row) {
        uint8_t& mark = seen[size_t(ids[row * fields + f] - low)];
        count += mark == 0;
        mark = 1;
      }
    } else {
      hashed.clear();
      for (int64_t row = 0; row < batch; ++row)
        count += hashed.number(uint64_t(uint32_t(ids[row * fields + f])), count) == count;
    }
    counts[size_t(f)] = count;
  }
  return counts;
}

PairIndex find_pairs(const int32_t* slots, int64_t batch, int64_t fields, const int32_t* first, const int32_t* second,
                     int64_t pairs, int threads, uint16_t* index) {
  std::vector<int32_t> columns(size_t(batch * fields)), lowest(size_t(fields), 0), width(size_t(fields), 0);
  for (int64_t f = 0; f < fields; ++f) {
    int32_t low = batch > 0 ? slots[f] : 0, high = low;
    int32_t* column = columns.data() + f * batch;
    for (int64_t row = 0; row < batch; ++row) {
      const int32_t slot = slots[row * fields + f];
      column[row] = slot;
      low = std::min(low, slot);
      high = std::max(high, slot);
    }
    lowest[size_t(f)] = low;
    width[size_t(f)] = high - low + 1;
  }
  PairJob job{columns.data(), lowest.data(), width.data(), batch, first, second, pairs, index, {}, {}};
  job.members.resize(size_t(threads));
  job.counts.resize(size_t(pairs));
  run_parts(threads, find_part, &job);
  PairIndex found;
  found.offsets.resize(size_t(pairs) + 1, 0);
  for (int64_t p = 0; p < pairs; ++p) found.offsets[size_t(p) + 1] = found.offsets[size_t(p)] + job.counts[size_t(p)];
  found.members = std::move(job.members[0]);
  for (int part = 1; part < threads; ++part) {
    found.members.insert(found.members.end(), job.members[size_t(part)].begin(), job.members[size_t(part)].end());
  }
  return found;
}

}  // namespace attfm
