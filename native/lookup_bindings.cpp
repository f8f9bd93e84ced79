// The boundary to Python of scoring by lookup: arrays are checked once, ids at each call.
#include "lookup.h"

#include <algorithm>
#include <vector>

#include "bindings.h"
#include "memory.h"
#include "threads.h"

namespace {

using attfm::LookupTask;

struct Run {
  const LookupTask& task;
};

void run_part(void* context, int part, int parts) {
  const LookupTask& task = static_cast<Run*>(context)->task;
  const int64_t start = task.batch * part / parts, stop = task.batch * (part + 1) / parts;
  attfm::kernels().lookup(task, start, stop - start);
}

class Lookup {
 public:
  explicit Lookup(nb::dict arrays) : held_(nb::steal<nb::dict>(PyDict_Copy(arrays.ptr()))) {
    const int64_t* machines = array<int64_t>("machines", 2);
    task_.machines = machines[0], task_.attention = machines[1] != 0;
    require(task_.machines >= 1, "there is a machine at least");
    task_.outputs = size("base"), task_.fields = size("singles");
    require(task_.outputs >= 1 && task_.fields >= 1, "there are outputs and fields");
    task_.base = array<double>("base", task_.outputs);
    starts_ = array<int32_t>("field_starts", task_.fields);
    stops_ = array<int32_t>("field_stops", task_.fields);
    singles_ = array<uint8_t>("singles", task_.fields);
    task_.features = stops_[task_.fields - 1];
    for (int64_t f = 0; f < task_.fields; ++f)
      require(starts_[f] >= 0 && starts_[f] < stops_[f] && stops_[f] <= task_.features, "fields have features");
    task_.linear = array<float>("linear", task_.features * task_.outputs);
    take_tables();
    take_computed();
    for (int64_t m = 0; m < task_.machines; ++m) take_memory("memory." + std::to_string(m) + ".");
  }

  // out: (batch, outputs)
  void logits(Array<const int32_t> ids, Maybe<const float> values, Maybe<const int64_t> offsets, int threads,
              Array<double> out) const {
    LookupTask task = task_;
    const int64_t places = offsets ? int64_t(offsets->size()) - 1 : int64_t(ids.size());
    require(places >= 0 && places % task.fields == 0, "ids must be (batch, fields)");
    require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024");
    task.batch = places / task.fields;
    require(int64_t(out.size()) == task.batch * task.outputs, "out must be (batch, outputs)");
    task.ids = ids.data();
    task.values = pointer(values, int64_t(ids.size()), "values must be as ids");
    task.offsets = offsets ? offsets->data() : nullptr;
    task.logits = out.data();
    check_ids(task, int64_t(ids.size()));
    nb::gil_scoped_release released;
    score(task, threads);
  }

  // The logits of one row with one feature in each field and no values: a float, or a list of several.
  nb::object row(nb::list ids) const {
    LookupTask task = task_;
    require(int64_t(ids.size()) == task.fields, "a row has an id for each field");
    std::vector<int32_t> own(size_t(task.fields));
    for (int64_t f = 0; f < task.fields; ++f) {
      const long id = PyLong_AsLong(PyList_GET_ITEM(ids.ptr(), f));
      if (id == -1 && PyErr_Occurred() != nullptr) throw nb::python_error();
      require(id >= starts_[f] && id < stops_[f], "ids must be features of their fields");
      own[size_t(f)] = int32_t(id);
    }
    std::vector<double> out(size_t(task.outputs));
    task.batch = 1;
    task.ids = own.data(), task.logits = out.data();
    score(task, 1);
    if (task.outputs == 1) return nb::float_(out[0]);
    nb::list logits;
    for (const double logit : out) logits.append(logit);
    return logits;
  }

 private:
  nb::dict held_;  // keeps the arrays
  std::vector<std::vector<float>> padded_;
  std::vector<attfm::MemoryTask> memories_;
  LookupTask task_{};
  const int32_t *starts_, *stops_;
  const uint8_t* singles_;

  template <class T>
  Array<const T> view(const std::string& name) const {
    require(held_.contains(name.c_str()), "an array is lacking");
    return nb::cast<Array<const T>>(held_[name.c_str()], false);  // what is converted would not be kept
  }
  int64_t size(const char* name) const {
    require(held_.contains(name), "an array is lacking");
    return int64_t(nb::len(nb::handle(nb::object(held_[name]))));
  }
  template <class T>
  const T* array(const std::string& name, int64_t wanted) const {
    const Array<const T> own = view<T>(name);
    require(int64_t(own.size()) == wanted, "an array has another size than expected");
    return own.data();
  }

  void take_tables() {
    const Array<const int32_t> grid = view<int32_t>("grid");
    const Array<const float> cells = view<float>("cells");
    require(grid.ndim() == 2 && grid.shape(0) == 3 && cells.ndim() == 2, "grid must be (3, pairs), cells (n, width)");
    const int64_t pairs = task_.pairs = int64_t(grid.shape(1)), count = int64_t(cells.shape(0));
    const int64_t width = task_.width = int64_t(cells.shape(1));
    require(pairs == 0 || pairs == task_.fields * (task_.fields - 1) / 2, "grid must have all pairs");
    require(width == 1 || width == 2 || (width > 0 && width % 4 == 0), "cells have 1, 2 or a multiple of 4 floats");
    require(width >= (task_.attention ? task_.machines * (1 + task_.outputs) : task_.outputs), "cells are too narrow");
    require(count >= 1 && count < (int64_t(1) << 31), "there are 1 to 2^31 cells");
    task_.origin = grid.data(), task_.step = task_.origin + pairs, task_.mask = task_.step + pairs;
    task_.cells = cells.data();
    task_.ask_ahead = count * width > (1 << 18);
    int64_t p = 0;
    for (int64_t i = 0; i < task_.fields && pairs > 0; ++i) {
      for (int64_t j = i + 1; j < task_.fields; ++j, ++p) {
        const uint32_t origin = uint32_t(task_.origin[p]), step = uint32_t(task_.step[p]);
        if (task_.mask[p] == 0) {
          require(step == 0 && origin < count, "a pair without a table has one cell");
          continue;
        }
        require(task_.mask[p] == -1 && singles_[i] != 0 && singles_[j] != 0, "tables are of fields with one feature");
        check_place(int64_t(uint32_t(origin + uint32_t(starts_[i]) * step + uint32_t(starts_[j]))), step, i, j, count);
      }
    }
    take_sums();
  }

  void take_sums() {
    const Array<const int32_t> pairs = view<int32_t>("sum_pairs");
    const Array<const float> cells = view<float>("sum_cells");
    const int64_t n = task_.sums = int64_t(pairs.size()) / 2;
    if (n == 0) return;
    require(cells.ndim() == 2 && int64_t(cells.shape(1)) >= task_.outputs, "sums have a float for each output");
    task_.sum_width = int64_t(cells.shape(1)), task_.sum_cells = cells.data();
    task_.sum_first = pairs.data(), task_.sum_second = pairs.data() + n;
    task_.sum_origin = array<int64_t>("sum_places", 2 * n), task_.sum_step = task_.sum_origin + n;
    for (int64_t p = 0; p < n; ++p) {
      const int32_t i = task_.sum_first[p], j = task_.sum_second[p];
      require(i >= 0 && i < task_.fields && j >= 0 && j < task_.fields, "pairs must name fields");
      require(singles_[i] != 0 && singles_[j] != 0, "tables are of fields with one feature");
      check_place(task_.sum_origin[p] + starts_[i] * task_.sum_step[p] + starts_[j], task_.sum_step[p], i, j,
                  int64_t(cells.shape(0)));
    }
  }

  // That the table of fields i and j, whose first cell is number `first`, lies within `count` cells.
  void check_place(int64_t first, int64_t step, int64_t i, int64_t j, int64_t count) const {
    require(step == stops_[j] - starts_[j], "a row of a table has a cell for each feature");
    require(first >= 0 && first + step * (stops_[i] - starts_[i]) <= count, "a table lies within the cells");
  }

  void take_computed() {
    const Array<const int32_t> pairs = view<int32_t>("computed_pairs");
    const int64_t n = task_.computed = int64_t(pairs.size()) / 2, M = task_.machines, O = task_.outputs;
    if (n == 0) return;
    task_.computed_first = pairs.data(), task_.computed_second = pairs.data() + n;
    for (int64_t p = 0; p < 2 * n; ++p)
      require(pairs.data()[p] >= 0 && pairs.data()[p] < task_.fields, "pairs must name fields");
    const Array<const float> V = view<float>("embeddings");
    require(V.ndim() == 3 && int64_t(V.shape(0)) == M && int64_t(V.shape(1)) == task_.features, "embeddings fit");
    const int64_t k = task_.dim = int64_t(V.shape(2));
    task_.embeddings = V.data();
    task_.projections = array<float>("projections", M * k * O);
    task_.factors = array<float>("factors", M * n * O);
    if (!task_.attention) return;
    const Array<const float> W = view<float>("W"), b = view<float>("b"), h = view<float>("h");
    require(b.ndim() == 2 && int64_t(b.shape(0)) == M, "b must be (machines, attention_dim)");
    const int64_t t = int64_t(b.shape(1)), padded = task_.hidden = (t + 15) / 16 * 16;
    require(int64_t(W.size()) == M * k * t && int64_t(h.size()) == M * t, "W and h fit b");
    task_.W = widened(W.data(), M * k, t, padded), task_.b = widened(b.data(), M, t, padded);
    task_.h = widened(h.data(), M, t, padded);
    task_.biases = array<float>("biases", M * n);
  }

  const float* widened(const float* from, int64_t rows, int64_t width, int64_t padded) {
    std::vector<float> to(size_t(rows * padded), 0.0f);
    for (int64_t r = 0; r < rows; ++r) std::copy(from + r * width, from + (r + 1) * width, to.data() + r * padded);
    padded_.push_back(std::move(to));
    return padded_.back().data();
  }

  void take_memory(const std::string& name) {
    if (!held_.contains((name + "pairs").c_str())) return;
    attfm::MemoryTask memory{};
    memory.fields = task_.fields, memory.outputs = task_.outputs, memory.threads = 1;
    const Array<const int64_t> pairs = view<int64_t>(name + "pairs"), slots = view<int64_t>(name + "slots");
    const int64_t n = memory.pairs = int64_t(pairs.size()) / 2, size = int64_t(slots.size());
    require(size >= 2 && (size & (size - 1)) == 0, "slots must be a power of two");
    require(std::find(slots.data(), slots.data() + size, -1) != slots.data() + size, "slots must have a free one");
    for (int64_t p = 0; p < 2 * n; ++p) {
      require(pairs.data()[p] >= 0 && pairs.data()[p] < task_.fields, "pairs must name fields");
      require(singles_[pairs.data()[p]] != 0, "memories are of fields with one feature a row");
    }
    memory.first = pairs.data(), memory.second = pairs.data() + n;
    memory.level = array<int32_t>(name + "level", task_.features);
    memory.width = array<int64_t>(name + "width", n), memory.offset = array<int64_t>(name + "offset", n);
    memory.slots = slots.data(), memory.mask = size - 1, memory.shift = 64;
    for (int64_t s = size; s > 1; s /= 2) --memory.shift;
    memory.effects = array<float>(name + "effects", size * task_.outputs);
    memory.unknown = array<float>(name + "unknown", n * task_.outputs);
    memories_.push_back(memory);
  }

  void check_ids(const LookupTask& task, int64_t entries) const {
    if (task.offsets != nullptr) {
      require(task.offsets[0] == 0 && task.offsets[task.batch * task.fields] == entries, "offsets do not fit ids");
      for (int64_t n = 0; n < task.batch * task.fields; ++n) {
        const int64_t start = task.offsets[n], stop = task.offsets[n + 1], f = n % task.fields;
        require(start <= stop && stop <= entries && (singles_[f] == 0 || stop == start + 1), "offsets do not fit ids");
        require(start < entries, "the last field has a feature");
        for (int64_t e = start; e < stop; ++e)
          require(task.ids[e] >= starts_[f] && task.ids[e] < stops_[f], "ids must be features of their fields");
      }
      return;
    }
    bool good = true;
    for (int64_t r = 0; r < task.batch; ++r) {
      const int32_t* ids = task.ids + r * task.fields;
      for (int64_t f = 0; f < task.fields; ++f) good &= (ids[f] >= starts_[f]) & (ids[f] < stops_[f]);
    }
    require(good, "ids must be features of their fields");
  }

  void score(const LookupTask& task, int threads) const {
    Run run{task};
    attfm::run_parts(int(std::min<int64_t>(threads, std::max<int64_t>(task.batch, 1))), run_part, &run);
    if (memories_.empty()) return;
    std::vector<float> sums(size_t(task.batch * task.outputs), 0.0f);
    for (attfm::MemoryTask memory : memories_) {
      memory.batch = task.batch, memory.ids = task.ids, memory.offsets = task.offsets;
      memory.threads = int(std::min<int64_t>(threads, std::max<int64_t>(task.batch, 1)));
      memory.sums = sums.data();
      attfm::find_remembered(memory);
    }
    for (size_t n = 0; n < sums.size(); ++n) task.logits[n] += double(sums[n]);
  }
};

}  // namespace

void bind_lookup(nb::module_& m) {
  nb::class_<Lookup>(m, "Lookup")
      .def(nb::init<nb::dict>(), nb::arg("arrays"))
      .def("logits", &Lookup::logits, nb::arg("ids"), nb::arg("values").none(), nb::arg("offsets").none(),
           nb::arg("threads"), nb::arg("out"))
      .def("row", &Lookup::row, nb::arg("ids"));
}
