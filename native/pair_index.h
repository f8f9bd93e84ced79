// Which features, and which pairs of features, a batch holds: the bookkeeping of the distinct-pairs path.
#pragma once

#include <cstdint>
#include <vector>

namespace attfm {

// Number the distinct ids of `ids` (batch, fields), field by field, in order of first appearance.
// slots (batch, fields) gets the numbers; returns the ids by number. Ids lie in [0, features).
std::vector<int64_t> find_slots(const int32_t* ids, int64_t batch, int64_t fields, int64_t features, int32_t* slots);

// How many distinct ids each field of `ids` (batch, fields) has.
std::vector<int64_t> count_distinct(const int32_t* ids, int64_t batch, int64_t fields);

// The distinct (slot of first[p], slot of second[p]) of every pair p of the fields.
struct PairIndex {
  std::vector<int32_t> members;  // (distinct, 2) slots, pair after pair
  std::vector<int32_t> offsets;  // (pairs + 1): pair p owns the members from offsets[p] on
};

// index (pairs, batch) gets the number of each row's member within its pair. batch is at most 65,536.
PairIndex find_pairs(const int32_t* slots, int64_t batch, int64_t fields, const int32_t* first, const int32_t* second,
                     int64_t pairs, int threads, uint16_t* index);

}  // namespace attfm
