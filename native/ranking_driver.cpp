// The ranking kernels on awkward shapes and exact blocks, for driver.cpp: held against the plain formula in double.
#include "ranking_driver.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>

namespace {

std::mt19937 generator(3);

// Exact-size heap blocks: one place past the end is an error that AddressSanitizer reports.
template <class T>
std::unique_ptr<T[]> block(int64_t size) {
  return std::unique_ptr<T[]>(new T[size_t(size)]());
}
std::unique_ptr<float[]> normal(int64_t size, float scale = 1) {
  auto made = block<float>(size);
  std::normal_distribution<float> draw(0.0f, scale);
  for (int64_t n = 0; n < size; ++n) made[size_t(n)] = draw(generator);
  return made;
}

struct Shape {
  int context, fields, dim, attention_dim, outputs, each, items, remembered;
};

struct Case {
  Shape s;
  int64_t pairs_of(int m) const { return int64_t(m) * (m - 1) / 2; }
  int entry_count;
  std::unique_ptr<float[]> W, b, h, projection, bias, gate, context_bias, context_gate, item_bias, item_gate, vectors,
      context_vectors, base, plain, memory_effects, unknown;
  std::unique_ptr<int32_t[]> entries, level, chosen, listed;
  std::unique_ptr<int64_t[]> memory_starts, keys, steps, slots, starts;

  explicit Case(const Shape& shape) : s(shape), entry_count(shape.fields * shape.each) {
    const int64_t T = s.attention_dim, K = s.dim, O = s.outputs, across = int64_t(s.context) * s.fields;
    W = normal(K * T, 0.5f), b = normal(T, 0.1f), h = normal(T), projection = normal(K * O);
    bias = normal(across), gate = normal(across);
    context_bias = normal(pairs_of(s.context)), context_gate = normal(pairs_of(s.context));
    item_bias = normal(pairs_of(s.fields)), item_gate = normal(pairs_of(s.fields));
    vectors = normal(entry_count * K), context_vectors = normal(s.context * K), base = normal(O);
    plain = normal(s.items * O), memory_effects = normal(64 * O), unknown = normal(s.remembered * s.fields * O);
    entries = block<int32_t>(s.items * s.fields), level = block<int32_t>(entry_count);
    for (int n = 0; n < s.items * s.fields; ++n)
      entries[size_t(n)] = n % s.fields * s.each + int32_t(generator() % unsigned(s.each));
    chosen = block<int32_t>(s.items), listed = block<int32_t>(entry_count);
    for (int n = 0; n < s.items; ++n) chosen[size_t(n)] = s.items - 1 - n;
    starts = block<int64_t>(s.fields + 1), memory_starts = block<int64_t>(s.fields + 1);
    for (int e = 0; e < entry_count; ++e) listed[size_t(e)] = e, level[size_t(e)] = e % s.each;
    for (int f = 0; f <= s.fields; ++f) starts[size_t(f)] = f * s.each, memory_starts[size_t(f)] = f * s.remembered;
    keys = block<int64_t>(s.remembered * s.fields), steps = block<int64_t>(s.remembered * s.fields);
    for (int r = 0; r < s.remembered * s.fields; ++r) keys[size_t(r)] = 100 * r, steps[size_t(r)] = 1 + r % 3;
    slots = block<int64_t>(64);
    std::fill(slots.get(), slots.get() + 64, int64_t(-1));
    for (int n = 0; n < 40 && s.remembered > 0; ++n) {
      const int64_t key = 100 * int64_t(generator() % unsigned(s.remembered * s.fields)) + n % 5;
      if (std::find(slots.get(), slots.get() + 64, key) != slots.get() + 64) continue;
      int64_t slot = int64_t((uint64_t(key) * 0x9E3779B97F4A7C15ull) >> 58);
      while (slots[size_t(slot)] != -1) slot = (slot + 1) & 63;
      slots[size_t(slot)] = key;
    }
  }

  attfm::PairNetwork network() const {
    return {s.dim, s.attention_dim, s.outputs, W.get(), b.get(), h.get(), projection.get()};
  }

  // Adds a pair of vectors to the sums: exp(e), and exp(e) g s of each output; without attention 1 and g s.
  void add(const float* x, const float* y, float c, float g, double& total, double* sums) const {
    double e = c;
    for (int t = 0; t < s.attention_dim; ++t) {
      double unit = b[size_t(t)];
      for (int k = 0; k < s.dim; ++k) unit += double(x[k]) * y[k] * W[size_t(k * s.attention_dim + t)];
      e += h[size_t(t)] * std::max(unit, 0.0);
    }
    const double share = s.attention_dim > 0 ? std::exp(e) : 1.0;
    total += share;
    for (int o = 0; o < s.outputs; ++o)
      for (int k = 0; k < s.dim; ++k) sums[o] += share * g * x[k] * y[k] * projection[size_t(k * s.outputs + o)];
  }

  void expected(int item, double* logits) const {
    const int32_t* own = entries.get() + item * s.fields;
    double total = 0;
    auto sums = block<double>(s.outputs);
    for (int i = 0, p = 0; i < s.context; ++i)
      for (int j = i + 1; j < s.context; ++j, ++p)
        add(context_vectors.get() + i * s.dim, context_vectors.get() + j * s.dim, context_bias[size_t(p)],
            context_gate[size_t(p)], total, sums.get());
    for (int i = 0, p = 0; i < s.fields; ++i)
      for (int j = i + 1; j < s.fields; ++j, ++p)
        add(vectors.get() + own[i] * s.dim, vectors.get() + own[j] * s.dim, item_bias[size_t(p)], item_gate[size_t(p)],
            total, sums.get());
    for (int i = 0; i < s.context; ++i)
      for (int j = 0; j < s.fields; ++j)
        add(context_vectors.get() + i * s.dim, vectors.get() + own[j] * s.dim, bias[size_t(i * s.fields + j)],
            gate[size_t(i * s.fields + j)], total, sums.get());
    for (int o = 0; o < s.outputs; ++o) {
      logits[o] = double(base[size_t(o)]) + plain[size_t(item * s.outputs + o)];
      if (s.dim > 0) logits[o] += 2.5 * sums[size_t(o)] / (s.attention_dim > 0 ? total : 1.0);
      for (int r = 0; r < s.remembered * s.fields; ++r) {
        const int64_t key = keys[size_t(r)] + steps[size_t(r)] * level[size_t(own[r / s.remembered])];
        const int64_t slot = std::find(slots.get(), slots.get() + 64, key) - slots.get();
        logits[o] += slot < 64 ? memory_effects[size_t(slot * s.outputs + o)] : unknown[size_t(r * s.outputs + o)];
      }
    }
  }

  double worst(const attfm::Kernels& set, int threads, bool with_list) const {
    auto log_sum = block<float>(s.items), effect = block<float>(s.items * s.outputs);
    auto logits = block<float>(s.items * s.outputs);
    std::fill(log_sum.get(), log_sum.get() + s.items, -1e30f);
    if (s.dim > 0 && s.fields > 1)
      set.rank_items({network(), s.items, s.fields, item_bias.get(), item_gate.get(), vectors.get(), entries.get(),
                      threads, log_sum.get(), effect.get()});
    attfm::RankTask task{};
    task.network = network(), task.context = s.context, task.fields = s.fields, task.scale = 2.5f;
    task.context_bias = context_bias.get(), task.context_gate = context_gate.get();
    task.bias = bias.get(), task.gate = gate.get(), task.context_vectors = context_vectors.get();
    task.base = base.get(), task.memory_starts = memory_starts.get(), task.memory_keys = keys.get();
    task.memory_steps = steps.get(), task.slots = slots.get(), task.mask = 63, task.shift = 58;
    task.memory_effects = memory_effects.get(), task.unknown = unknown.get();
    task.entry_count = entry_count, task.vectors = vectors.get(), task.level = level.get();
    task.entries = entries.get(), task.log_sum = log_sum.get(), task.effect = effect.get(), task.plain = plain.get();
    task.count = s.items, task.items = chosen.get(), task.threads = threads, task.logits = logits.get();
    if (with_list) task.listed = listed.get(), task.starts = starts.get();
    set.rank(task);
    double worst = 0, largest = 1;
    auto exact = block<double>(s.outputs);
    for (int n = 0; n < s.items; ++n) {
      expected(chosen[size_t(n)], exact.get());
      for (int o = 0; o < s.outputs; ++o) {
        const double error = std::abs(exact[size_t(o)] - logits[size_t(n * s.outputs + o)]);
        worst = error >= 0 ? std::max(worst, error) : 1e30;  // NaN
        largest = std::max(largest, std::abs(exact[size_t(o)]));
      }
    }
    return worst / largest;
  }
};

}  // namespace

int ranking_differences(const std::vector<const attfm::Kernels*>& sets, int& runs) {
  int failures = 0;
  for (const Shape& s : {
           Shape{1, 1, 1, 1, 1, 1, 1, 0},        // one pair, across
           Shape{1, 2, 5, 3, 1, 4, 33, 1},       // no pair within the context
           Shape{3, 1, 7, 5, 2, 60, 130, 2},     // none within an item
           Shape{12, 3, 17, 16, 1, 50, 100, 0},  // more pairs than fit the lanes
           Shape{4, 4, 16, 9, 3, 7, 49, 3},      // several outputs
           Shape{5, 3, 8, 0, 1, 30, 70, 2},      // no attention
           Shape{5, 3, 8, 0, 5, 30, 70, 0},
           Shape{2, 3, 0, 0, 2, 9, 20, 2},  // no pairs
       }) {
    const Case made(s);
    for (const attfm::Kernels* set : sets)
      for (int threads : {1, 2, 5})
        for (bool with_list : {false, true}) {
          ++runs;
          const double error = made.worst(*set, threads, with_list);
          if (error < 2e-4) continue;
          ++failures;
          std::printf("%s: ranking differs by %.1e with %d threads, %d context fields, dim %d\n", set->name, error,
                      threads, s.context, s.dim);
        }
  }
  return failures;
}
