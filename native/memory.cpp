// Pair memory: the effect of each remembered pair of values, found by hash.
#include "memory.h"

#include <algorithm>
#include <vector>

#include "threads.h"

namespace attfm {
namespace {

constexpr int64_t BLOCK = 16;  // rows whose slots are asked for before the first is read: memory answers meanwhile

void memory_part(void* context, int part, int parts) {
  const MemoryTask& task = *static_cast<const MemoryTask*>(context);
  const int64_t P = task.pairs, O = task.outputs;
  std::vector<int64_t> keys(size_t(BLOCK * P)), homes(size_t(BLOCK * P)), levels(size_t(task.fields));
  std::vector<int64_t> used(task.first, task.first + P);
  used.insert(used.end(), task.second, task.second + P);
  std::sort(used.begin(), used.end());
  used.erase(std::unique(used.begin(), used.end()), used.end());
  const int64_t last = task.batch * (part + 1) / parts;
  for (int64_t start = task.batch * part / parts; start < last; start += BLOCK) {
    const int64_t count = std::min(BLOCK, last - start);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = (start + r) * task.fields;
      for (const int64_t field : used) {
        const int64_t entry = task.offsets != nullptr ? task.offsets[row + field] : row + field;
        levels[size_t(field)] = task.level[task.ids[entry]];
      }
      for (int64_t p = 0; p < P; ++p) {
        const int64_t key =
            task.offset[p] + levels[size_t(task.first[p])] * task.width[p] + levels[size_t(task.second[p])];
        const int64_t home = int64_t((uint64_t(key) * 0x9E3779B97F4A7C15ull) >> task.shift);
        keys[size_t(r * P + p)] = key;
        homes[size_t(r * P + p)] = home;
        __builtin_prefetch(task.slots + home);
        __builtin_prefetch(task.effects + home * O);
      }
    }
    for (int64_t n = 0; n < count * P; ++n) {
      const int64_t key = keys[size_t(n)], row = start + n / P, p = n % P;
      int64_t slot = homes[size_t(n)];
      while (task.slots[slot] != key && task.slots[slot] != -1) slot = (slot + 1) & task.mask;
      const bool known = task.slots[slot] == key;
      const float* effect = known ? task.effects + slot * O : task.unknown + p * O;
      for (int64_t c = 0; c < O; ++c) {
        if (task.sums != nullptr) task.sums[row * O + c] += effect[c];
        if (task.found != nullptr) task.found[(row * P + p) * O + c] = effect[c];
      }
      if (task.counts != nullptr) task.counts[row * P + p] = known ? task.slot_rows[slot] : 0;
    }
  }
}

}  // namespace

void find_remembered(const MemoryTask& task) {
  MemoryTask copy = task;
  run_parts(task.threads, memory_part, &copy);
}

}  // namespace attfm
