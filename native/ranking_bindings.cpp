// The boundary to Python of what ranks items for a context.
#include <algorithm>

#include "bindings.h"
#include "ranking.h"

namespace {

using Floats = Array<const float>;

attfm::PairNetwork network_of(const Maybe<const float>& W, const Maybe<const float>& b, const Maybe<const float>& h,
                              const Floats& projection) {
  attfm::PairNetwork network{};
  require(projection.ndim() == 2, "projection must be (dim, outputs)");
  network.dim = int64_t(projection.shape(0)), network.outputs = int64_t(projection.shape(1));
  require(network.outputs >= 1 && bool(W) == bool(b) && bool(W) == bool(h), "W, b and h come together");
  network.attention_dim = b ? int64_t(b->size()) : 0;
  network.W = pointer(W, network.dim * network.attention_dim, "W must be (dim, attention_dim)");
  network.b = pointer(b, network.attention_dim, "b must be (attention_dim)");
  network.h = pointer(h, network.attention_dim, "h must be (attention_dim)");
  require(network.dim > 0 || !W, "attention needs pairs");
  network.projection = projection.data();
  return network;
}

template <class T>
const T* sized(const Array<const T>& array, int64_t size, const char* what) {
  require(int64_t(array.size()) == size, what);
  return array.data();
}

// Raises where a number is not in [0, stop).
void check_numbers(const int32_t* numbers, int64_t count, int64_t stop, const char* what) {
  uint32_t highest = 0;  // a negative number is a very large one
  for (int64_t n = 0; n < count; ++n) highest = std::max(highest, uint32_t(numbers[n]));
  require(count == 0 || int64_t(highest) < stop, what);
}

void rank_items(Maybe<const float> W, Maybe<const float> b, Maybe<const float> h, Floats projection, Floats bias,
                Floats gate, Floats vectors, Array<const int32_t> entries, int threads, Array<float> log_sum,
                Array<float> effect) {
  attfm::ItemsTask task{};
  task.network = network_of(W, b, h, projection);
  require(task.network.dim > 0, "pairs need a projection");
  require(entries.ndim() == 2 && entries.shape(1) >= 1, "entries must be (items, fields)");
  task.items = int64_t(entries.shape(0)), task.fields = int64_t(entries.shape(1));
  const int64_t pairs = task.fields * (task.fields - 1) / 2;
  task.bias = sized(bias, pairs, "bias must be (pairs)"), task.gate = sized(gate, pairs, "gate must be (pairs)");
  require(vectors.ndim() == 2 && int64_t(vectors.shape(1)) == task.network.dim, "vectors must be (entries, dim)");
  check_numbers(entries.data(), int64_t(entries.size()), int64_t(vectors.shape(0)), "entries must number vectors");
  require(int64_t(log_sum.size()) == task.items, "log_sum must be (items)");
  require(int64_t(effect.size()) == task.items * task.network.outputs, "effect must be (items, outputs)");
  require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024");
  task.vectors = vectors.data(), task.entries = entries.data(), task.threads = threads;
  task.log_sum = log_sum.data(), task.effect = effect.data();
  nb::gil_scoped_release released;
  attfm::kernels().rank_items(task);
}

void rank(Maybe<const float> W, Maybe<const float> b, Maybe<const float> h, Floats projection, Floats context_bias,
          Floats context_gate, Floats bias, Floats gate, double scale, Floats context_vectors, Floats base,
          Array<const int64_t> memory_keys, Array<const int64_t> memory_starts, Array<const int64_t> memory_steps,
          Array<const int64_t> slots, Floats memory_effects, Floats unknown, Floats vectors, Array<const int32_t> level,
          Floats log_sum, Floats effect, Floats plain, Array<const int32_t> entries, Array<const int32_t> items,
          Maybe<const int32_t> listed, Maybe<const int64_t> starts, int threads, Array<float> logits) {
  attfm::RankTask task{};
  task.network = network_of(W, b, h, projection);
  const int64_t outputs = task.network.outputs, dim = task.network.dim;
  require(context_vectors.ndim() == 2 && int64_t(context_vectors.shape(1)) == dim, "a context must be (fields, dim)");
  require(entries.ndim() == 2 && entries.shape(1) >= 1, "entries must be (items, fields)");
  const int64_t context = int64_t(context_vectors.shape(0)), fields = int64_t(entries.shape(1));
  task.context = context, task.fields = fields, task.scale = float(scale);
  const int64_t pairs = dim > 0 ? context * (context - 1) / 2 : 0;
  task.context_bias = sized(context_bias, pairs, "context_bias must be (context pairs)");
  task.context_gate = sized(context_gate, pairs, "context_gate must be (context pairs)");
  task.bias = sized(bias, context * fields, "bias must be (context, fields)");
  task.gate = sized(gate, context * fields, "gate must be (context, fields)");
  task.context_vectors = context_vectors.data(), task.base = sized(base, outputs, "base must be (outputs)");

  const int64_t remembered = int64_t(memory_keys.size()), size = int64_t(slots.size());
  task.memory_keys = memory_keys.data();
  task.memory_steps = sized(memory_steps, remembered, "one step a pair");
  task.memory_starts = sized(memory_starts, fields + 1, "memory_starts must be (fields + 1)");
  for (int64_t f = 0; f < fields; ++f)
    require(memory_starts.data()[f] <= memory_starts.data()[f + 1], "memory_starts must rise");
  require(memory_starts.data()[0] == 0 && memory_starts.data()[fields] == remembered, "memory_starts must hold pairs");
  require(size >= 2 && (size & (size - 1)) == 0, "slots must be a power of two");
  bool free = remembered == 0;
  for (int64_t n = 0; n < size && !free; ++n) free = slots.data()[n] == -1;
  require(free, "slots must have a free one: a search ends there");
  task.slots = slots.data(), task.mask = size - 1, task.shift = 64;
  for (int64_t n = size; n > 1; n /= 2) --task.shift;
  task.memory_effects = sized(memory_effects, size * outputs, "effects must be (slots, outputs)");
  task.unknown = sized(unknown, remembered * outputs, "unknown must be (pairs, outputs)");

  task.entry_count = int64_t(level.size());
  task.level = level.data();
  task.vectors = sized(vectors, task.entry_count * dim, "vectors must be (entries, dim)");
  const int64_t all = int64_t(log_sum.size());
  task.log_sum = log_sum.data();
  task.effect = sized(effect, all * outputs, "effect must be (items, outputs)");
  task.plain = sized(plain, all * outputs, "plain must be (items, outputs)");
  task.count = int64_t(items.size()), task.items = items.data(), task.entries = entries.data();
  check_numbers(task.items, task.count, std::min(all, int64_t(entries.shape(0))), "items must number entries");
  require(task.entry_count <= INT32_MAX, "entries must be below 2^31");
  for (int64_t n = 0; n < task.count; ++n)
    check_numbers(task.entries + task.items[n] * fields, fields, task.entry_count, "entries must number vectors");
  require(bool(listed) == bool(starts), "listed and starts come together");
  task.starts = pointer(starts, fields + 1, "starts must be (fields + 1)");
  if (listed) {
    task.listed = listed->data();
    for (int64_t f = 0; f < fields; ++f) require(task.starts[f] <= task.starts[f + 1], "starts must rise");
    require(task.starts[0] == 0 && task.starts[fields] == int64_t(listed->size()), "starts must hold listed");
    check_numbers(task.listed, int64_t(listed->size()), task.entry_count, "listed must number vectors");
  }
  require(int64_t(logits.size()) == task.count * outputs, "logits must be (items, outputs)");
  require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024");
  task.threads = threads, task.logits = logits.data();
  nb::gil_scoped_release released;
  attfm::kernels().rank(task);
}

}  // namespace

void bind_ranking(nb::module_& m) {
  m.def("rank_items", &rank_items, nb::arg("W").none(), nb::arg("b").none(), nb::arg("h").none(), nb::arg("projection"),
        nb::arg("bias"), nb::arg("gate"), nb::arg("vectors"), nb::arg("entries"), nb::arg("threads"),
        nb::arg("log_sum").noconvert(), nb::arg("effect").noconvert());
  m.def("rank", &rank, nb::arg("W").none(), nb::arg("b").none(), nb::arg("h").none(), nb::arg("projection"),
        nb::arg("context_bias"), nb::arg("context_gate"), nb::arg("bias"), nb::arg("gate"), nb::arg("scale"),
        nb::arg("context_vectors"), nb::arg("base"), nb::arg("memory_keys"), nb::arg("memory_starts"),
        nb::arg("memory_steps"), nb::arg("slots"), nb::arg("memory_effects"), nb::arg("unknown"), nb::arg("vectors"),
        nb::arg("level"), nb::arg("log_sum"), nb::arg("effect"), nb::arg("plain"), nb::arg("entries"), nb::arg("items"),
        nb::arg("listed").none(), nb::arg("starts").none(), nb::arg("threads"), nb::arg("logits").noconvert());
}
