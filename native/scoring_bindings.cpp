// The boundary to Python of what scores rows: logits, and what the pair memory holds of them.
#include <algorithm>

#include "bindings.h"
#include "memory.h"
#include "scoring.h"

namespace {

void score(Array<const int32_t> ids, Maybe<const float> values, Maybe<const int64_t> offsets, int64_t fields,
           Array<const float> intercept, Array<const float> linear, Maybe<const float> table,
           Maybe<const float> projection, Maybe<const float> W, Maybe<const float> b, Maybe<const float> h,
           Maybe<const float> bias, Maybe<const float> gate, Array<const int32_t> pairs, bool plain, double scale,
           bool distinct, int64_t chunk, int threads, Array<float> logits) {
  attfm::ScoreTask task{};
  require(linear.ndim() == 2, "linear must be (features, outputs)");
  require(bool(table) == bool(projection), "table and projection come together");
  task.outputs = int64_t(linear.shape(1));
  // Without pairs the linear table stands in for the other: its ids are checked the same.
  task.pool = task_of(table ? *table : linear, Maybe<const int32_t>(ids), values, offsets, fields, W, b, h, bias, gate,
                      pairs, plain, scale, 0.0, 0.0, 0, threads, bool(table));
  require(!table || table->shape(0) == linear.shape(0), "table and linear must have the same rows");
  require(int64_t(intercept.size()) == task.outputs, "intercept must be (outputs)");
  require(int64_t(logits.size()) == task.pool.batch * task.outputs, "logits must be (batch, outputs)");
  require(chunk >= 1 && (!distinct || chunk <= 65536), "chunk must be 1 to 65536");
  require(!distinct || (table && W && !values && !offsets), "distinct pairs need ids alone, and attention");
  task.pool.slot_count = int64_t(linear.shape(0));
  task.intercept = intercept.data(), task.linear = linear.data(), task.logits = logits.data();
  task.projection = pointer(projection, task.pool.dim * task.outputs, "projection must be (dim, outputs)");
  task.distinct = distinct;
  nb::gil_scoped_release released;
  attfm::score(attfm::kernels(), task, chunk);
}

void find_remembered(Array<const int32_t> ids, Maybe<const int64_t> offsets, int64_t fields, Array<const int32_t> level,
                     Array<const int64_t> pairs, Array<const int64_t> width, Array<const int64_t> offset,
                     Array<const int64_t> slots, Array<const float> effects, Array<const float> unknown,
                     Array<const int32_t> slot_rows, int threads, Maybe<float> sums, Maybe<float> found,
                     Maybe<int32_t> counts) {
  attfm::MemoryTask task{};
  task.fields = fields;
  task.pairs = int64_t(width.size());
  const int64_t places = offsets ? int64_t(offsets->size()) : int64_t(ids.size());
  require(fields >= 1 && places % fields == 0, "ids must be (batch, fields)");
  task.batch = places / fields;
  require(unknown.ndim() == 2 && int64_t(unknown.shape(0)) == task.pairs, "unknown must be (pairs, outputs)");
  task.outputs = int64_t(unknown.shape(1));
  require(pairs.ndim() == 2 && pairs.shape(0) == 2, "pairs must be (2, pairs)");
  require(int64_t(pairs.shape(1)) == task.pairs && int64_t(offset.size()) == task.pairs, "one key a pair");
  const int64_t size = int64_t(slots.size());
  require(size >= 2 && (size & (size - 1)) == 0, "slots must be a power of two");
  require(int64_t(effects.size()) == size * task.outputs && int64_t(slot_rows.size()) == size, "values as slots");
  require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024");
  for (int64_t n = 0; n < 2 * task.pairs; ++n)
    require(pairs.data()[n] >= 0 && pairs.data()[n] < fields, "pairs must name fields");
  bool free = false;
  for (int64_t n = 0; n < size && !free; ++n) free = slots.data()[n] == -1;
  require(free, "slots must have a free one: a search ends there");
  int64_t low = 0, high = -1, least = 0, most = -1;
  for (int64_t n = 0; n < int64_t(ids.size()); ++n) {
    low = std::min<int64_t>(low, ids.data()[n]);
    high = std::max<int64_t>(high, ids.data()[n]);
  }
  require(low >= 0 && high < int64_t(level.size()), "ids must be features");
  for (int64_t n = 0; offsets && n < places; ++n) {
    least = std::min(least, offsets->data()[n]);
    most = std::max(most, offsets->data()[n]);
  }
  require(least >= 0 && most < int64_t(ids.size()), "offsets do not fit ids");
  task.ids = ids.data();
  task.offsets = offsets ? offsets->data() : nullptr;
  task.level = level.data();
  task.first = pairs.data(), task.second = pairs.data() + task.pairs;
  task.width = width.data(), task.offset = offset.data();
  task.slots = slots.data(), task.mask = size - 1;
  task.shift = 64;
  for (int64_t n = size; n > 1; n /= 2) --task.shift;
  task.effects = effects.data(), task.unknown = unknown.data(), task.slot_rows = slot_rows.data();
  task.threads = threads;
  task.sums = pointer(sums, task.batch * task.outputs, "sums must be (batch, outputs)");
  task.found = pointer(found, task.batch * task.pairs * task.outputs, "found must be (batch, pairs, outputs)");
  task.counts = pointer(counts, task.batch * task.pairs, "counts must be (batch, pairs)");
  nb::gil_scoped_release released;
  attfm::find_remembered(task);
}

}  // namespace

void bind_scoring(nb::module_& m) {
  m.def("score", &score, nb::arg("ids"), nb::arg("values").none(), nb::arg("offsets").none(), nb::arg("fields"),
        nb::arg("intercept"), nb::arg("linear"), nb::arg("table").none(), nb::arg("projection").none(),
        nb::arg("W").none(), nb::arg("b").none(), nb::arg("h").none(), nb::arg("bias").none(), nb::arg("gate").none(),
        nb::arg("pairs"), nb::arg("plain"), nb::arg("scale"), nb::arg("distinct"), nb::arg("chunk"), nb::arg("threads"),
        nb::arg("logits"));
  m.def("find_remembered", &find_remembered, nb::arg("ids"), nb::arg("offsets").none(), nb::arg("fields"),
        nb::arg("level"), nb::arg("pairs"), nb::arg("width"), nb::arg("offset"), nb::arg("slots"), nb::arg("effects"),
        nb::arg("unknown"), nb::arg("slot_rows"), nb::arg("threads"), nb::arg("sums").none(), nb::arg("found").none(),
        nb::arg("counts").none());
}
