// Pair memory: the effect of each remembered pair of values, found by hash.
#include "memory.h"

#include <algorithm>
#include <vector>

#include "threads.h"

namespace attfm {
namespace {

// Each row passes three times, AHEAD rows apart: its slots are asked for, then read and the effects asked for, then
// these are summed. Memory answers while the rows between are worked on.
constexpr int64_t AHEAD = 4;

struct Lookup {
  const MemoryTask& task;
  std::vector<int64_t> levels, used;  // level of a row's field; the fields that some pair has
  std::vector<int64_t> keys;          // (AHEAD, pairs)
  std::vector<const float*> effects;  // (AHEAD, pairs)

  explicit Lookup(const MemoryTask& t)
      : task(t),
        levels(size_t(t.fields)),
        used(t.first, t.first + t.pairs),
        keys(size_t(AHEAD * t.pairs)),
        effects(keys.size()) {
    used.insert(used.end(), t.second, t.second + t.pairs);
    std::sort(used.begin(), used.end());
    used.erase(std::unique(used.begin(), used.end()), used.end());
  }

  int64_t home(int64_t key) const { return int64_t((uint64_t(key) * 0x9E3779B97F4A7C15ull) >> task.shift); }

  void ask_slots(int64_t row) {
    for (const int64_t field : used) {
      const int64_t place = row * task.fields + field;
      levels[size_t(field)] = task.level[task.ids[task.offsets != nullptr ? task.offsets[place] : place]];
    }
    int64_t* to = keys.data() + row % AHEAD * task.pairs;
    for (int64_t p = 0; p < task.pairs; ++p) {
      to[p] = task.offset[p] + levels[size_t(task.first[p])] * task.width[p] + levels[size_t(task.second[p])];
      __builtin_prefetch(task.slots + home(to[p]));
    }
  }

  void ask_effects(int64_t row) {
    const int64_t* from = keys.data() + row % AHEAD * task.pairs;
    const float** to = effects.data() + row % AHEAD * task.pairs;
    for (int64_t p = 0; p < task.pairs; ++p) {
      const int64_t key = from[p];
      int64_t slot = home(key), there = task.slots[slot];
      // One condition and a choice by index: a branch on "known" would be guessed wrong for every other pair.
      while ((there != key) & (there != -1)) {
        slot = (slot + 1) & task.mask;
        there = task.slots[slot];
      }
      const bool known = there == key;
      const float* const either[] = {task.unknown + p * task.outputs, task.effects + slot * task.outputs};
      to[p] = either[known];
      __builtin_prefetch(to[p]);
      if (task.counts != nullptr) task.counts[row * task.pairs + p] = known ? task.slot_rows[slot] : 0;
    }
  }

  void add_effects(int64_t row) {
    const int64_t P = task.pairs, O = task.outputs;
    const float* const* from = effects.data() + row % AHEAD * P;
    for (int64_t c = 0; c < O && task.sums != nullptr; ++c) {
      float sum = 0;
      for (int64_t p = 0; p < P; ++p) sum += from[p][c];
      task.sums[row * O + c] += sum;
    }
    for (int64_t p = 0; p < P && task.found != nullptr; ++p)
      std::copy(from[p], from[p] + O, task.found + (row * P + p) * O);
  }
};

void memory_part(void* context, int part, int parts) {
  const MemoryTask& task = *static_cast<const MemoryTask*>(context);
  Lookup lookup(task);
  const int64_t start = task.batch * part / parts, stop = task.batch * (part + 1) / parts;
  for (int64_t row = start; row < stop + 2 * AHEAD; ++row) {
    if (row >= start + 2 * AHEAD) lookup.add_effects(row - 2 * AHEAD);
    if (row >= start + AHEAD && row < stop + AHEAD) lookup.ask_effects(row - AHEAD);
    if (row < stop) lookup.ask_slots(row);
  }
}

}  // namespace

void find_remembered(const MemoryTask& task) {
  MemoryTask copy = task;
  run_parts(task.threads, memory_part, &copy);
}

}  // namespace attfm
