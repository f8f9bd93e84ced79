// The boundary to Python: shapes are checked once more, pointers are taken, the GIL is let go.
// The friendly checks and messages are in ops/checks.py and ops/backends.py.
#include <vector>

#include "bindings.h"
#include "pair_index.h"

attfm::PoolTask task_of(const Array<const float>& embeddings, const Maybe<const int32_t>& ids,
                        const Maybe<const float>& values, const Maybe<const int64_t>& offsets, int64_t fields,
                        const Maybe<const float>& W, const Maybe<const float>& b, const Maybe<const float>& h,
                        const Maybe<const float>& bias, const Maybe<const float>& gate,
                        const Array<const int32_t>& pairs, bool plain, double scale, double dropout,
                        double pair_dropout, uint64_t seed, int threads, bool pooled) {
  attfm::PoolTask task{};
  require(pairs.ndim() == 2 && pairs.shape(0) == 2, "pairs must be (2, pairs)");
  require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024");
  require(dropout >= 0 && dropout < 1, "dropout must be in [0, 1)");
  require(pair_dropout >= 0 && pair_dropout < 1, "pair_dropout must be in [0, 1)");
  require(!plain || (dropout == 0 && pair_dropout == 0), "the closed form has no dropout");
  if (ids) {
    require(embeddings.ndim() == 2, "a table must be (features, dim)");
    const int64_t places = offsets ? int64_t(offsets->size()) - 1 : int64_t(ids->size());
    require(fields >= 1 && fields < 1 << 20 && places >= 0 && places % fields == 0, "ids must be (batch, fields)");
    task.batch = places / fields;
    task.fields = int32_t(fields);
    task.dim = int32_t(embeddings.shape(1));
    static const int32_t nothing = 0;
    task.ids = ids->size() > 0 ? ids->data() : &nothing;  // null would stand for "no ids"
    task.values = pointer(values, int64_t(ids->size()), "values must be as ids");
    if (offsets) {
      task.offsets = offsets->data();
      require(task.offsets[0] == 0 && task.offsets[places] == int64_t(ids->size()), "offsets do not fit ids");
      for (int64_t at = 0; at < places; ++at)
        require(task.offsets[at] <= task.offsets[at + 1], "offsets must not fall");
    }
    const int64_t features = int64_t(embeddings.shape(0)), count = int64_t(ids->size());
    int32_t low = 0, high = -1;
    for (int64_t n = 0; n < count; ++n) {
      low = task.ids[n] < low ? task.ids[n] : low;
      high = task.ids[n] > high ? task.ids[n] : high;
    }
    require(low >= 0 && high < features, "ids must be rows of the table");
  } else {
    require(!values && !offsets, "values and offsets come with ids");
    require(embeddings.ndim() == 3, "embeddings must be (batch, fields, dim)");
    task.batch = int64_t(embeddings.shape(0));
    task.fields = int32_t(embeddings.shape(1));
    task.dim = int32_t(embeddings.shape(2));
  }
  task.pairs = int32_t(pairs.shape(1));
  task.first = pairs.data();
  task.second = pairs.data() + task.pairs;
  for (int64_t p = 0; p < 2 * int64_t(task.pairs); ++p)
    require(task.first[p] >= 0 && task.first[p] < task.fields, "pairs must name fields");
  require(!pooled || (task.dim >= 1 && task.pairs >= 1), "dim and pairs must be at least 1");
  task.embeddings = embeddings.data();
  if (W) {
    require(b && h && W->ndim() == 2, "W, b and h come together");
    task.attention_dim = int32_t(W->shape(1));
    require(task.attention_dim >= 1, "attention_dim must be at least 1");
    task.W = pointer(W, int64_t(task.dim) * task.attention_dim, "W must be (dim, attention_dim)");
    task.b = pointer(b, task.attention_dim, "b must be (attention_dim)");
    task.h = pointer(h, task.attention_dim, "h must be (attention_dim)");
  }
  task.bias = W ? pointer(bias, task.pairs, "pair_bias must be (pairs)") : nullptr;
  task.gate = pointer(gate, task.pairs, "pair_gate must be (pairs)");
  task.plain = plain;
  task.scale = float(scale);
  task.dropout = float(dropout);
  task.pair_dropout = pair_dropout;
  task.seed = seed;
  task.threads = threads;
  return task;
}

namespace {

int64_t fields_of(const Array<const int32_t>& slots) {
  require(slots.ndim() == 2, "slots must be (batch, fields)");
  return int64_t(slots.shape(1));
}

void pool_forward(Array<const float> embeddings, Maybe<const int32_t> ids, Maybe<const float> values,
                  Maybe<const int64_t> offsets, int64_t fields, Maybe<const float> W, Maybe<const float> b,
                  Maybe<const float> h, Maybe<const float> bias, Maybe<const float> gate, Array<const int32_t> pairs,
                  bool plain, double scale, double dropout, double pair_dropout, uint64_t seed, int threads,
                  Array<float> pooled, Maybe<float> weights, Maybe<float> attention, Maybe<uint8_t> bits) {
  attfm::PoolTask task = task_of(embeddings, ids, values, offsets, fields, W, b, h, bias, gate, pairs, plain, scale,
                                 dropout, pair_dropout, seed, threads);
  const int64_t entries = task.batch * task.pairs;
  require(int64_t(pooled.size()) == task.batch * task.dim, "pooled must be (batch, dim)");
  task.pooled = pooled.data();
  task.weights = pointer(weights, entries, "weights must be (batch, pairs)");
  task.attention = pointer(attention, entries, "attention must be (batch, pairs)");
  task.bits = pointer(bits, entries * attfm::bit_bytes(task.attention_dim), "bits have the wrong size");
  nb::gil_scoped_release released;
  attfm::kernels().pool_forward(task);
}

void pool_backward(Array<const float> embeddings, Maybe<const int32_t> ids, Maybe<const float> values,
                   Maybe<const int64_t> offsets, int64_t fields, Maybe<const float> W, Maybe<const float> b,
                   Maybe<const float> h, Maybe<const float> bias, Maybe<const float> gate, Array<const int32_t> pairs,
                   bool plain, double scale, double dropout, double pair_dropout, uint64_t seed, int threads,
                   Maybe<float> attention, Maybe<uint8_t> bits, Array<const float> grad_pooled,
                   Maybe<const float> grad_weights, bool by_entry, Array<float> grad_embeddings, Maybe<float> grad_W,
                   Maybe<float> grad_b, Maybe<float> grad_h, Maybe<float> grad_bias, Maybe<float> grad_gate) {
  attfm::PoolTask task = task_of(embeddings, ids, values, offsets, fields, W, b, h, bias, gate, pairs, plain, scale,
                                 dropout, pair_dropout, seed, threads);
  const int64_t entries = task.batch * task.pairs;
  task.attention = pointer(attention, entries, "attention must be (batch, pairs)");
  require(task.attention_dim == 0 || task.attention != nullptr, "attention is needed");
  task.bits = pointer(bits, entries * attfm::bit_bytes(task.attention_dim), "bits have the wrong size");
  require(int64_t(grad_pooled.size()) == task.batch * task.dim, "grad_pooled must be (batch, dim)");
  task.grad_pooled = grad_pooled.data();
  task.grad_weights = pointer(grad_weights, entries, "grad_weights must be (batch, pairs)");
  task.grad_embeddings = grad_embeddings.data();
  task.by_entry = task.ids == nullptr || by_entry;
  if (task.by_entry) {
    const int64_t entry_count = task.ids != nullptr ? int64_t(ids->size()) : task.batch * task.fields;
    require(int64_t(grad_embeddings.size()) == entry_count * task.dim, "gradient of the entries");
  } else {
    task.slot_count = int64_t(embeddings.shape(0));
    require(grad_embeddings.size() == embeddings.size(), "gradient of the table");
  }
  if (task.attention_dim > 0) {
    require(grad_W && grad_b && grad_h, "gradients of the attention network");
    task.grad_W = pointer(grad_W, int64_t(task.dim) * task.attention_dim, "gradient of W");
    task.grad_b = pointer(grad_b, task.attention_dim, "gradient of b");
    task.grad_h = pointer(grad_h, task.attention_dim, "gradient of h");
    task.grad_bias = pointer(grad_bias, task.pairs, "gradient of pair_bias");
  }
  task.grad_gate = pointer(grad_gate, task.pairs, "gradient of pair_gate");
  nb::gil_scoped_release released;
  attfm::kernels().pool_backward(task);
}

// A torch tensor that owns the vector's memory.
template <class T, class Shape>
nb::ndarray<nb::pytorch, T> tensor(std::vector<T>&& values, Shape shape) {
  auto* kept = new std::vector<T>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::pytorch, T>(kept->data(), shape.size(), shape.data(), owner);
}

auto find_slots(Array<const int32_t> ids, int64_t features, Array<int32_t> slots) {
  require(ids.ndim() == 2 && slots.size() == ids.size(), "ids and slots must be (batch, fields)");
  for (size_t n = 0; n < ids.size(); ++n)
    require(ids.data()[n] >= 0 && ids.data()[n] < features, "ids must be rows of the table");
  std::vector<int64_t> rows;
  {
    nb::gil_scoped_release released;
    rows = attfm::find_slots(ids.data(), int64_t(ids.shape(0)), int64_t(ids.shape(1)), features, slots.data());
  }
  return tensor(std::move(rows), std::vector<size_t>{rows.size()});
}

// Lowest and highest id; of torch's own ways, aminmax leaves threads of OpenMP spinning, which hold up the kernels'.
template <class T>
auto id_range(Array<const T> ids) {
  T low = 0, high = -1;
  if (ids.size() > 0) low = high = ids.data()[0];
  for (size_t n = 0; n < ids.size(); ++n) {
    low = ids.data()[n] < low ? ids.data()[n] : low;
    high = ids.data()[n] > high ? ids.data()[n] : high;
  }
  return nb::make_tuple(low, high);
}

auto count_distinct(Array<const int32_t> ids) {
  require(ids.ndim() == 2, "ids must be (batch, fields)");
  std::vector<int64_t> counts = attfm::count_distinct(ids.data(), int64_t(ids.shape(0)), int64_t(ids.shape(1)));
  const size_t fields = counts.size();
  return tensor(std::move(counts), std::vector<size_t>{fields});
}

auto find_pairs(Array<const int32_t> slots, Array<const int32_t> pairs, int threads, Array<int16_t> index) {
  require(slots.ndim() == 2 && slots.shape(0) <= 65536, "slots must be (batch, fields), batch at most 65536");
  require(pairs.ndim() == 2 && pairs.shape(0) == 2, "pairs must be (2, pairs)");
  require(index.size() == pairs.shape(1) * slots.shape(0), "index must be (pairs, batch)");
  require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024");
  for (size_t p = 0; p < pairs.size(); ++p)
    require(pairs.data()[p] >= 0 && size_t(pairs.data()[p]) < slots.shape(1), "pairs must name fields");
  for (size_t n = 0; n < slots.size(); ++n) require(slots.data()[n] >= 0, "slots must not be negative");
  attfm::PairIndex found;
  {
    nb::gil_scoped_release released;
    found = attfm::find_pairs(slots.data(), int64_t(slots.shape(0)), int64_t(slots.shape(1)), pairs.data(),
                              pairs.data() + pairs.shape(1), int64_t(pairs.shape(1)), threads,
                              reinterpret_cast<uint16_t*>(index.data()));
  }
  const size_t distinct = found.members.size() / 2, ends = found.offsets.size();
  return nb::make_tuple(tensor(std::move(found.offsets), std::vector<size_t>{ends}),
                        tensor(std::move(found.members), std::vector<size_t>{distinct, 2}));
}

// The distinct pairs of a batch; every number in them was made by find_pairs, and is checked all the same.
attfm::DistinctTask distinct_task(const attfm::PoolTask& pool, int64_t slot_count, const Array<const int16_t>& index,
                                  const Array<const int32_t>& offsets, const Array<const int32_t>& members) {
  attfm::DistinctTask task{};
  task.pool = pool;
  task.pool.slot_count = slot_count;
  require(pool.ids != nullptr && pool.attention_dim > 0, "distinct pairs need ids and attention");
  require(int64_t(index.size()) == pool.pairs * pool.batch, "index must be (pairs, batch)");
  require(int64_t(offsets.size()) == pool.pairs + 1, "offsets must be (pairs + 1)");
  task.distinct = int64_t(members.size()) / 2;
  task.index = reinterpret_cast<const uint16_t*>(index.data());
  task.offsets = offsets.data();
  task.members = members.data();
  require(task.offsets[0] == 0 && task.offsets[pool.pairs] == task.distinct, "offsets do not fit members");
  for (int64_t n = 0; n < 2 * task.distinct; ++n)
    require(task.members[n] >= 0 && task.members[n] < slot_count, "members must be slots");
  for (int64_t p = 0; p < pool.pairs; ++p) {
    uint16_t highest = 0;
    const uint16_t* numbers = task.index + p * pool.batch;
    for (int64_t row = 0; row < pool.batch; ++row) highest = numbers[row] > highest ? numbers[row] : highest;
    require(task.offsets[p] + highest < task.offsets[p + 1], "index does not fit offsets");
  }
  return task;
}

void distinct_forward(Array<const float> vectors, Array<const int32_t> slots, Array<const int16_t> index,
                      Array<const int32_t> offsets, Array<const int32_t> members, Array<const float> W,
                      Array<const float> b, Array<const float> h, Maybe<const float> bias, Maybe<const float> gate,
                      Array<const int32_t> pairs, double scale, double dropout, uint64_t seed, int threads,
                      Array<float> pooled, Maybe<float> weights, Maybe<float> attention, Maybe<uint8_t> bits) {
  attfm::PoolTask pool = task_of(vectors, slots, std::nullopt, std::nullopt, fields_of(slots), W, b, h, bias, gate,
                                 pairs, false, scale, dropout, 0.0, seed, threads);
  attfm::DistinctTask task = distinct_task(pool, int64_t(vectors.shape(0)), index, offsets, members);
  const int64_t entries = pool.batch * pool.pairs;
  require(int64_t(pooled.size()) == pool.batch * pool.dim, "pooled must be (batch, dim)");
  task.pool.pooled = pooled.data();
  task.pool.weights = pointer(weights, entries, "weights must be (batch, pairs)");
  task.pool.attention = pointer(attention, entries, "attention must be (batch, pairs)");
  task.pool.bits = pointer(bits, task.distinct * attfm::bit_bytes(pool.attention_dim), "bits have the wrong size");
  nb::gil_scoped_release released;
  attfm::kernels().distinct_forward(task);
}

void distinct_backward(Array<const float> vectors, Array<const int32_t> slots, Array<const int16_t> index,
                       Array<const int32_t> offsets, Array<const int32_t> members, Array<const float> W,
                       Array<const float> b, Array<const float> h, Maybe<const float> bias, Maybe<const float> gate,
                       Array<const int32_t> pairs, double scale, double dropout, uint64_t seed, int threads,
                       Array<float> attention, Maybe<uint8_t> bits, Array<const float> grad_pooled,
                       Maybe<const float> grad_weights, Array<float> grad_vectors, Array<float> grad_W,
                       Array<float> grad_b, Array<float> grad_h, Maybe<float> grad_bias, Maybe<float> grad_gate) {
  attfm::PoolTask pool = task_of(vectors, slots, std::nullopt, std::nullopt, fields_of(slots), W, b, h, bias, gate,
                                 pairs, false, scale, dropout, 0.0, seed, threads);
  attfm::DistinctTask task = distinct_task(pool, int64_t(vectors.shape(0)), index, offsets, members);
  const int64_t entries = pool.batch * pool.pairs;
  require(int64_t(attention.size()) == entries, "attention must be (batch, pairs)");
  task.pool.attention = attention.data();
  task.pool.bits = pointer(bits, task.distinct * attfm::bit_bytes(pool.attention_dim), "bits have the wrong size");
  require(int64_t(grad_pooled.size()) == pool.batch * pool.dim, "grad_pooled must be (batch, dim)");
  task.pool.grad_pooled = grad_pooled.data();
  task.pool.grad_weights = pointer(grad_weights, entries, "grad_weights must be (batch, pairs)");
  require(grad_vectors.size() == vectors.size(), "gradient of the vectors");
  task.pool.grad_embeddings = grad_vectors.data();
  task.pool.grad_W = pointer(Maybe<float>(grad_W), int64_t(pool.dim) * pool.attention_dim, "gradient of W");
  task.pool.grad_b = pointer(Maybe<float>(grad_b), pool.attention_dim, "gradient of b");
  task.pool.grad_h = pointer(Maybe<float>(grad_h), pool.attention_dim, "gradient of h");
  task.pool.grad_bias = pointer(grad_bias, pool.pairs, "gradient of pair_bias");
  task.pool.grad_gate = pointer(grad_gate, pool.pairs, "gradient of pair_gate");
  nb::gil_scoped_release released;
  attfm::kernels().distinct_backward(task);
}

void update_rows(Array<const int64_t> rows, Array<float> parameter, Maybe<float> first, Array<float> second,
                 Array<const float> gradient, double rate, double decay, double eps, double beta1, double beta2,
                 double correction1, double correction2, int threads, Maybe<float> average, Maybe<double> seen,
                 double log_factors, double keep) {
  require(parameter.ndim() == 2 && second.size() == parameter.size(), "state must be as the parameter");
  attfm::RowsTask task{};
  task.count = int64_t(rows.size());
  task.dim = int64_t(parameter.shape(1));
  require(int64_t(gradient.size()) == task.count * task.dim, "gradient must be (rows, dim)");
  require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024");
  for (int64_t n = 0; n < task.count; ++n)
    require(rows.data()[n] >= 0 && rows.data()[n] < int64_t(parameter.shape(0)), "rows must lie in the table");
  task.rows = rows.data();
  task.parameter = parameter.data();
  task.first = pointer(first, int64_t(parameter.size()), "state must be as the parameter");
  task.second = second.data();
  task.gradient = gradient.data();
  task.rate = float(rate), task.decay = float(decay), task.eps = float(eps);
  task.beta1 = float(beta1), task.beta2 = float(beta2);
  task.correction1 = float(correction1), task.correction2 = float(correction2);
  task.threads = threads;
  task.average = pointer(average, int64_t(parameter.size()), "the average must be as the parameter");
  task.seen = pointer(seen, int64_t(parameter.shape(0)), "seen must be (features,)");
  require((task.average == nullptr) == (task.seen == nullptr), "average and seen come together");
  require(keep > 0 && keep <= 1, "keep must be above 0, at most 1");
  task.log_factors = log_factors, task.keep = float(keep);
  nb::gil_scoped_release released;
  attfm::kernels().update_rows(task);
}

}  // namespace

NB_MODULE(_native, m) {
  // What a program still holds when it ends is no leak worth a message to its users.
  nb::set_leak_warnings(false);
  m.def("isa", [] { return attfm::kernels().name; });
  m.def("lanes", [] { return attfm::kernels().lanes; });
  m.def("bit_bytes", &attfm::bit_bytes);
  m.def("peak", [](int64_t steps) { return attfm::kernels().peak(steps); }, nb::call_guard<nb::gil_scoped_release>());
  m.def("pool_forward", &pool_forward, nb::arg("embeddings"), nb::arg("ids").none(), nb::arg("values").none(),
        nb::arg("offsets").none(), nb::arg("fields"), nb::arg("W").none(), nb::arg("b").none(), nb::arg("h").none(),
        nb::arg("bias").none(), nb::arg("gate").none(), nb::arg("pairs"), nb::arg("plain"), nb::arg("scale"),
        nb::arg("dropout"), nb::arg("pair_dropout"), nb::arg("seed"), nb::arg("threads"), nb::arg("pooled"),
        nb::arg("weights").none(), nb::arg("attention").none(), nb::arg("bits").none());
  m.def("pool_backward", &pool_backward, nb::arg("embeddings"), nb::arg("ids").none(), nb::arg("values").none(),
        nb::arg("offsets").none(), nb::arg("fields"), nb::arg("W").none(), nb::arg("b").none(), nb::arg("h").none(),
        nb::arg("bias").none(), nb::arg("gate").none(), nb::arg("pairs"), nb::arg("plain"), nb::arg("scale"),
        nb::arg("dropout"), nb::arg("pair_dropout"), nb::arg("seed"), nb::arg("threads"), nb::arg("attention").none(),
        nb::arg("bits").none(), nb::arg("grad_pooled"), nb::arg("grad_weights").none(), nb::arg("by_entry"),
        nb::arg("grad_embeddings"), nb::arg("grad_W").none(), nb::arg("grad_b").none(), nb::arg("grad_h").none(),
        nb::arg("grad_bias").none(), nb::arg("grad_gate").none());
  m.def("find_slots", &find_slots, nb::arg("ids"), nb::arg("features"), nb::arg("slots"));
  m.def("id_range", &id_range<int32_t>, nb::arg("ids"));
  m.def("id_range", &id_range<int64_t>, nb::arg("ids"));
  m.def("count_distinct", &count_distinct, nb::arg("ids"));
  m.def("find_pairs", &find_pairs, nb::arg("slots"), nb::arg("pairs"), nb::arg("threads"), nb::arg("index"));
  m.def("distinct_forward", &distinct_forward, nb::arg("vectors"), nb::arg("slots"), nb::arg("index"),
        nb::arg("offsets"), nb::arg("members"), nb::arg("W"), nb::arg("b"), nb::arg("h"), nb::arg("bias").none(),
        nb::arg("gate").none(), nb::arg("pairs"), nb::arg("scale"), nb::arg("dropout"), nb::arg("seed"),
        nb::arg("threads"), nb::arg("pooled"), nb::arg("weights").none(), nb::arg("attention").none(),
        nb::arg("bits").none());
  m.def("distinct_backward", &distinct_backward, nb::arg("vectors"), nb::arg("slots"), nb::arg("index"),
        nb::arg("offsets"), nb::arg("members"), nb::arg("W"), nb::arg("b"), nb::arg("h"), nb::arg("bias").none(),
        nb::arg("gate").none(), nb::arg("pairs"), nb::arg("scale"), nb::arg("dropout"), nb::arg("seed"),
        nb::arg("threads"), nb::arg("attention"), nb::arg("bits").none(), nb::arg("grad_pooled"),
        nb::arg("grad_weights").none(), nb::arg("grad_vectors"), nb::arg("grad_W"), nb::arg("grad_b"),
        nb::arg("grad_h"), nb::arg("grad_bias").none(), nb::arg("grad_gate").none());
  bind_scoring(m);
  bind_lookup(m);
  bind_ranking(m);
  bind_columns(m);
  m.def("update_rows", &update_rows, nb::arg("rows"), nb::arg("parameter"), nb::arg("first").none(), nb::arg("second"),
        nb::arg("gradient"), nb::arg("rate"), nb::arg("decay"), nb::arg("eps"), nb::arg("beta1"), nb::arg("beta2"),
        nb::arg("correction1"), nb::arg("correction2"), nb::arg("threads"), nb::arg("average").none() = nb::none(),
        nb::arg("seen").none() = nb::none(), nb::arg("log_factors") = 0.0, nb::arg("keep") = 1.0);
}
