// Runs every kernel on awkward shapes under AddressSanitizer and UBSan (make sanitize); no Python involved.
// It also checks that the paths and all instruction sets agree, so that a run which reads the wrong memory
// without leaving its buffer shows too.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"
#include "lookup_driver.h"
#include "memory.h"
#include "pair_index.h"
#include "ranking_driver.h"
#include "scoring.h"

namespace {

// An exact-size heap block: one float past its end is an error that AddressSanitizer reports.
template <class T>
struct Block {
  std::unique_ptr<T[]> data;
  size_t size;
  explicit Block(size_t n) : data(new T[n]()), size(n) {}
  T* get() { return data.get(); }
};

std::mt19937 generator(1);

Block<float> normal(size_t n, float scale) {
  Block<float> block(n);
  std::normal_distribution<float> draw(0.0f, scale);
  for (size_t i = 0; i < n; ++i) block.data[i] = draw(generator);
  return block;
}

struct Shape {
  int batch, fields, dim, attention_dim, values;
};

struct Outputs {
  std::vector<float> values;
  void add(Block<float>& block) { values.insert(values.end(), block.get(), block.get() + block.size); }
};

struct Inputs {
  Shape shape;
  int pairs, slots;
  Block<int32_t> ids, first, second;
  Block<float> vectors, W, b, h, bias, gate, grad_pooled, grad_weights;

  explicit Inputs(Shape s)
      : shape(s),
        pairs(s.fields * (s.fields - 1) / 2),
        slots(s.fields * s.values),
        ids(size_t(s.batch) * s.fields),
        first(pairs),
        second(pairs),
        vectors(normal(size_t(slots) * s.dim, 1)),
        W(normal(size_t(s.dim) * s.attention_dim, 0.3f)),
        b(normal(s.attention_dim, 0.1f)),
        h(normal(s.attention_dim, 0.3f)),
        bias(normal(pairs, 0.5f)),
        gate(normal(pairs, 1)),
        grad_pooled(normal(size_t(s.batch) * s.dim, 1)),
        grad_weights(normal(size_t(s.batch) * pairs, 1)) {
    for (int r = 0; r < s.batch; ++r)
      for (int f = 0; f < s.fields; ++f)
        ids.data[size_t(r) * s.fields + f] = f * s.values + int(generator() % s.values);
    int p = 0;
    for (int i = 0; i < s.fields; ++i)
      for (int j = i + 1; j < s.fields; ++j, ++p) first.data[p] = i, second.data[p] = j;
  }

  attfm::PoolTask task(int threads, double dropout, double pair_dropout) {
    attfm::PoolTask t{};
    t.batch = shape.batch, t.fields = shape.fields, t.dim = shape.dim, t.attention_dim = shape.attention_dim;
    t.pairs = pairs, t.embeddings = vectors.get(), t.ids = ids.get();
    if (shape.attention_dim > 0) t.W = W.get(), t.b = b.get(), t.h = h.get(), t.bias = bias.get();
    t.gate = gate.get(), t.first = first.get(), t.second = second.get();
    t.scale = 1.5f, t.dropout = float(dropout), t.pair_dropout = pair_dropout;
    t.seed = 12345678901234ull, t.threads = threads;
    t.slot_count = slots;
    return t;
  }
};

// Every vector as the sum of two halves: the same numbers through values, offsets and gradients by entry.
struct Halves {
  Block<int32_t> ids;
  Block<float> values;
  Block<int64_t> offsets;

  Halves(const Inputs& in, bool wanted)
      : ids(wanted ? 2 * in.ids.size : 0), values(ids.size), offsets(wanted ? in.ids.size + 1 : 0) {
    for (size_t n = 0; n < ids.size; ++n) ids.data[n] = in.ids.data[n / 2], values.data[n] = 0.5f;
    for (size_t n = 0; n < offsets.size; ++n) offsets.data[n] = int64_t(2 * n);
  }
  void put_in(attfm::PoolTask& task) { task.ids = ids.get(), task.values = values.get(), task.offsets = offsets.get(); }
};

// One forward and backward; path 0: gathered vectors, 1: by row from ids, 2: distinct pairs, 3: by row from bags.
Outputs run(const attfm::Kernels& kernels, Inputs& in, int path, int threads, bool keep_bits, double dropout,
            double pair_dropout) {
  const Shape s = in.shape;
  attfm::PoolTask task = in.task(threads, dropout, pair_dropout);
  const size_t entries = size_t(s.batch) * in.pairs;
  Block<uint16_t> index(entries);
  attfm::DistinctTask distinct{};
  attfm::PairIndex found;
  size_t bit_rows = entries;
  if (path == 2) {
    found = attfm::find_pairs(in.ids.get(), s.batch, s.fields, in.first.get(), in.second.get(), in.pairs, threads,
                              index.get());
    bit_rows = found.members.size() / 2;
  }
  Block<float> gathered(path == 0 ? size_t(s.batch) * s.fields * s.dim : 0);
  if (path == 0) {
    for (size_t n = 0; n < size_t(s.batch) * s.fields; ++n)
      for (int l = 0; l < s.dim; ++l)
        gathered.data[n * s.dim + l] = in.vectors.data[size_t(in.ids.data[n]) * s.dim + l];
    task.embeddings = gathered.get();
    task.ids = nullptr;
    task.by_entry = true;
  }
  Halves halves(in, path == 3);
  if (path == 3) {
    halves.put_in(task);
    task.by_entry = true;
  }
  Block<float> pooled(size_t(s.batch) * s.dim), weights(entries), attention(s.attention_dim > 0 ? entries : 0);
  Block<uint8_t> bits(keep_bits ? bit_rows * attfm::bit_bytes(s.attention_dim) : 0);
  task.pooled = pooled.get(), task.weights = weights.get();
  task.attention = s.attention_dim > 0 ? attention.get() : nullptr;
  task.bits = keep_bits ? bits.get() : nullptr;
  Block<float> grad_vectors(path == 0   ? gathered.size
                            : path == 3 ? 2 * in.ids.size * s.dim
                                        : in.vectors.size),
      grad_W(in.W.size), grad_b(in.b.size), grad_h(in.h.size), grad_bias(in.pairs), grad_gate(in.pairs);
  task.grad_pooled = in.grad_pooled.get(), task.grad_weights = in.grad_weights.get();
  task.grad_embeddings = grad_vectors.get(), task.grad_W = grad_W.get(), task.grad_b = grad_b.get();
  task.grad_h = grad_h.get(), task.grad_bias = s.attention_dim > 0 ? grad_bias.get() : nullptr;
  task.grad_gate = grad_gate.get();
  if (path == 2) {
    distinct = {task, int64_t(bit_rows), index.get(), found.offsets.data(), found.members.data()};
    kernels.distinct_forward(distinct);
    kernels.distinct_backward(distinct);
  } else {
    kernels.pool_forward(task);
    kernels.pool_backward(task);
  }
  Outputs out;
  for (Block<float>* block : {&pooled, &weights, &grad_W, &grad_b, &grad_h, &grad_bias, &grad_gate}) out.add(*block);
  if (task.by_entry) {  // bring the gradient of the gathered vectors to the table, as the other paths give it
    Block<float> table(in.vectors.size);
    for (size_t n = 0; n < grad_vectors.size / s.dim; ++n) {
      const size_t id = size_t(path == 3 ? halves.ids.data[n] : in.ids.data[n]);
      for (int l = 0; l < s.dim; ++l) table.data[id * s.dim + l] += grad_vectors.data[n * s.dim + l];
    }
    out.add(table);
  } else {
    out.add(grad_vectors);
  }
  return out;
}

// Logits of all rows, in chunks of seven; path 1: by row from ids, 2: distinct pairs, 3: by row from bags.
Outputs score(const attfm::Kernels& kernels, Inputs& in, int path, int threads, int outputs) {
  const Shape s = in.shape;
  attfm::ScoreTask task{};
  task.pool = in.task(threads, 0, 0);
  Halves halves(in, path == 3);
  if (path == 3) halves.put_in(task.pool);
  generator.seed(5);
  Block<float> intercept = normal(outputs, 1), linear = normal(size_t(in.slots) * outputs, 1),
               projection = normal(size_t(s.dim) * outputs, 1), logits(size_t(s.batch) * outputs);
  task.distinct = path == 2;
  task.outputs = outputs;
  task.intercept = intercept.get(), task.linear = linear.get(), task.projection = projection.get();
  task.logits = logits.get();
  attfm::score(kernels, task, 7);
  Outputs out;
  out.add(logits);
  return out;
}

// Three steps of Adam, then three of Adagrad, on some rows of a table.
Outputs update(const attfm::Kernels& kernels, int dim, int threads) {
  generator.seed(7);
  Block<float> parameter = normal(size_t(50) * dim, 1), first(parameter.size), second(parameter.size);
  Block<float> gradient = normal(size_t(9) * dim, 1), average(parameter.size);
  Block<int64_t> rows(9);
  Block<double> seen(50);
  for (int n = 0; n < 9; ++n) rows.data[n] = 49 - 6 * n;
  for (int step = 1; step <= 6; ++step) {
    attfm::RowsTask task{9,
                         dim,
                         rows.get(),
                         parameter.get(),
                         step <= 3 ? first.get() : nullptr,
                         second.get(),
                         gradient.get(),
                         0.1f,
                         0.01f,
                         1e-6f,
                         0.9f,
                         0.99f,
                         0.1f,
                         0.01f,
                         threads,
                         average.get(),
                         seen.get(),
                         -0.1 * step,
                         0.9f};
    kernels.update_rows(task);
  }
  Outputs out;
  for (Block<float>* block : {&parameter, &first, &second, &average}) out.add(*block);
  return out;
}

// A memory of value pairs on exact blocks; every effect, sum and number of rows is compared with a plain search.
struct MemoryShape {
  int batch, fields, levels, pairs, slots, known, outputs;
  bool bags;  // entries are found by offsets
};

bool memory_agrees(const MemoryShape& s, int threads) {
  generator.seed(7);
  Block<int32_t> level(size_t(s.fields) * s.levels), counts(size_t(s.batch) * s.pairs), slot_rows(size_t(s.slots));
  for (size_t n = 0; n < level.size; ++n) level.data[n] = int32_t(n % s.levels);
  Block<int64_t> first(s.pairs), second(s.pairs), width(s.pairs), offset(s.pairs), slots(size_t(s.slots));
  for (int p = 0; p < s.pairs; ++p) {
    first.data[p] = p % (s.fields - 1), second.data[p] = s.fields - 1;
    width.data[p] = s.levels, offset.data[p] = int64_t(p) * s.levels * s.levels;
  }
  Block<float> effects(normal(size_t(s.slots) * s.outputs, 1)), unknown(normal(size_t(s.pairs) * s.outputs, 1));
  int shift = 64;
  for (int n = s.slots; n > 1; n /= 2) --shift;
  std::fill(slots.get(), slots.get() + s.slots, int64_t(-1));
  const int64_t keys = int64_t(s.pairs) * s.levels * s.levels;
  for (int64_t n = 0; n < s.known; ++n) {  // distinct keys, spread over all there are
    const int64_t key = n * keys / s.known;
    int64_t slot = int64_t((uint64_t(key) * 0x9E3779B97F4A7C15ull) >> shift);
    while (slots.data[slot] != -1) slot = (slot + 1) & (s.slots - 1);
    slots.data[slot] = key, slot_rows.data[slot] = int32_t(n + 1);
  }
  // With bags every entry stands behind one that no offset names.
  const size_t places = size_t(s.batch) * s.fields;
  Block<int32_t> ids(s.bags ? 2 * places : places);
  Block<int64_t> offsets(s.bags ? places : 0);
  for (size_t n = 0; n < places; ++n) {
    const int32_t id = int32_t(n % s.fields) * s.levels + int32_t(generator() % s.levels);
    ids.data[s.bags ? 2 * n + 1 : n] = id;
    if (s.bags) offsets.data[n] = int64_t(2 * n + 1);
  }
  Block<float> sums(size_t(s.batch) * s.outputs), found(size_t(s.batch) * s.pairs * s.outputs), summed(sums.size);
  attfm::MemoryTask task{
      s.batch,     s.fields,    s.pairs,       s.outputs,     ids.get(),       s.bags ? offsets.get() : nullptr,
      level.get(), first.get(), second.get(),  width.get(),   offset.get(),    slots.get(),
      s.slots - 1, shift,       effects.get(), unknown.get(), slot_rows.get(), threads,
      nullptr,     found.get(), counts.get()};
  attfm::find_remembered(task);
  task.sums = summed.get(), task.found = nullptr, task.counts = nullptr;
  attfm::find_remembered(task);
  for (int r = 0; r < s.batch; ++r)
    for (int p = 0; p < s.pairs; ++p) {
      const auto level_of = [&](int64_t field) {
        const size_t place = size_t(r) * s.fields + size_t(field);
        return int64_t(level.data[ids.data[s.bags ? size_t(offsets.data[place]) : place]]);
      };
      const int64_t key = offset.data[p] + level_of(first.data[p]) * s.levels + level_of(second.data[p]);
      const int64_t slot = std::find(slots.get(), slots.get() + s.slots, key) - slots.get();
      const bool known = slot < s.slots;
      const size_t at = size_t(r) * s.pairs + p;
      if (counts.data[at] != (known ? slot_rows.data[slot] : 0)) return false;
      for (int c = 0; c < s.outputs; ++c) {
        const float effect = known ? effects.data[slot * s.outputs + c] : unknown.data[p * s.outputs + c];
        if (found.data[at * s.outputs + c] != effect) return false;
        sums.data[r * s.outputs + c] += effect;
      }
    }
  return std::equal(sums.get(), sums.get() + sums.size, summed.get());
}

double difference(const Outputs& a, const Outputs& b) {
  double worst = 0, largest = 1e-3;
  for (size_t i = 0; i < a.values.size(); ++i) {
    if (!(std::abs(a.values[i]) < 1e30)) return 1e30;
    worst = std::max(worst, std::abs(double(a.values[i]) - b.values[i]));
    largest = std::max(largest, std::abs(double(a.values[i])));
  }
  return worst / largest;
}

}  // namespace

int main() {
  std::vector<const attfm::Kernels*> sets = {&attfm::portable_kernels};
#if defined(ATTFM_X86)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets.push_back(&attfm::avx2_kernels);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    sets.push_back(&attfm::avx512_kernels);
#endif
  const Shape shapes[] = {
      {1, 2, 1, 1, 1},    {33, 2, 17, 5, 3},   {33, 3, 1, 5, 4},   {1, 39, 17, 1, 9},
      {33, 39, 17, 5, 2}, {7, 39, 16, 16, 5},  {19, 14, 8, 33, 6}, {5, 14, 16, 150, 9},
      {70, 5, 40, 48, 3}, {3, 10, 256, 64, 7}, {40, 5, 9, 0, 4},   {300, 3, 5, 7, 500},
  };
  int failures = 0, runs = 0;
  for (const Shape& shape : shapes) {
    Inputs in(shape);
    for (auto [dropout, pair_dropout] : {std::pair{0.0, 0.0}, {0.4, 0.0}, {0.0, 0.3}, {0.4, 0.3}}) {
      const Outputs expected = run(attfm::portable_kernels, in, 0, 1, false, dropout, pair_dropout);
      for (const attfm::Kernels* set : sets)
        for (int path : {0, 1, 2, 3}) {
          if (path == 2 && (shape.attention_dim == 0 || pair_dropout > 0)) continue;
          for (int threads : {1, 2, 5})
            for (bool keep_bits : {false, true}) {
              const int used = std::min(threads, shape.batch);
              const Outputs got =
                  run(*set, in, path, used, keep_bits && shape.attention_dim > 0, dropout, pair_dropout);
              const double error = difference(expected, got);
              ++runs;
              if (error < 2e-4) continue;
              ++failures;
              std::printf("%s path %d threads %d bits %d shape (%d, %d, %d, %d): differs by %.1e\n", set->name, path,
                          used, keep_bits, shape.batch, shape.fields, shape.dim, shape.attention_dim, error);
            }
        }
    }
  }
  for (const Shape& shape : shapes) {
    Inputs in(shape);
    for (int outputs : {1, 3}) {
      const Outputs expected = score(attfm::portable_kernels, in, 1, 1, outputs);
      for (const attfm::Kernels* set : sets)
        for (int path : {1, 2, 3}) {
          if (path == 2 && shape.attention_dim == 0) continue;
          for (int threads : {1, 2, 5}) {
            ++runs;
            if (difference(expected, score(*set, in, path, threads, outputs)) < 2e-4) continue;
            ++failures;
            std::printf("%s: scores by path %d differ with %d threads, dim %d\n", set->name, path, threads, shape.dim);
          }
        }
    }
  }
  for (int dim : {1, 16, 37}) {
    const Outputs expected = update(attfm::portable_kernels, dim, 1);
    for (const attfm::Kernels* set : sets)
      for (int threads : {1, 2, 5}) {
        ++runs;
        if (difference(expected, update(*set, dim, threads)) < 1e-5) continue;
        ++failures;
        std::printf("%s: the rows' updates differ with dim %d, %d threads\n", set->name, dim, threads);
      }
  }
  for (const MemoryShape& shape : {
           MemoryShape{0, 3, 5, 2, 64, 20, 1, false},           // no rows
           MemoryShape{1, 2, 1, 1, 2, 1, 1, false},             // one row, one value pair
           MemoryShape{3, 2, 6, 1, 2, 0, 2, false},             // nothing known
           MemoryShape{9, 4, 7, 3, 256, 60, 3, false},          // several outputs
           MemoryShape{33, 5, 6, 4, 128, 127, 2, true},         // one free slot, by offsets
           MemoryShape{300, 6, 11, 60, 16384, 7260, 1, false},  // every value pair, and more pairs than fields
           MemoryShape{257, 3, 40, 2, 1024, 1000, 1, true},
       })
    for (int threads : {1, 2, 5}) {
      ++runs;
      if (memory_agrees(shape, threads)) continue;
      ++failures;
      std::printf("the memory of %d value pairs differs with %d rows, %d threads\n", shape.known, shape.batch, threads);
    }
  const Failures lookups = check_lookup(sets);
  runs += lookups.runs, failures += lookups.failures;
  failures += ranking_differences(sets, runs);
  std::printf("%d runs on %zu instruction sets, %d differ\n", runs, sets.size(), failures);
  return failures > 0;
}
