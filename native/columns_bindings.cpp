// The boundary to Python of what encodes columns: arrays of NumPy by the buffer protocol, Arrow's by its C interface.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cmath>
#include <memory>

#include "bindings.h"
#include "columns.h"

namespace {

using attfm::Cell;
using attfm::CellValue;
using attfm::Column;
using attfm::FieldReader;
using attfm::Kind;
using attfm::ValueIndex;

// The structures of Arrow's C data interface (arrow.apache.org/docs/format/CDataInterface.html).
struct ArrowSchema {
  const char *format, *name, *metadata;
  int64_t flags, n_children;
  ArrowSchema **children, *dictionary;
  void (*release)(ArrowSchema*);
  void* private_data;
};
struct ArrowArray {
  int64_t length, null_count, offset, n_buffers, n_children;
  const void** buffers;
  ArrowArray **children, *dictionary;
  void (*release)(ArrowArray*);
  void* private_data;
};

// Text of any width as UTF-8; false of half a surrogate pair.
bool as_utf8(PyObject* text, std::string& utf8) {
  const int kind = int(PyUnicode_KIND(text));
  const void* data = PyUnicode_DATA(text);
  const Py_ssize_t size = PyUnicode_GET_LENGTH(text);
  utf8.clear();
  for (Py_ssize_t i = 0; i < size; ++i) {
    const Py_UCS4 c = PyUnicode_READ(kind, data, i);
    if (c >= 0xD800 && c <= 0xDFFF) return false;
    if (c < 0x80) {
      utf8 += char(c);
    } else if (c < 0x800) {
      utf8 += {char(0xC0 | c >> 6), char(0x80 | (c & 63))};
    } else if (c < 0x10000) {
      utf8 += {char(0xE0 | c >> 12), char(0x80 | (c >> 6 & 63)), char(0x80 | (c & 63))};
    } else {
      utf8 += {char(0xF0 | c >> 18), char(0x80 | (c >> 12 & 63)), char(0x80 | (c >> 6 & 63)), char(0x80 | (c & 63))};
    }
  }
  return true;
}

bool is_named_missing(PyObject* cell) {  // pandas' NA and NaT
  const std::string name = Py_TYPE(cell)->tp_name;
  const std::string last = name.substr(name.rfind('.') + 1);
  return last == "NAType" || last == "NaTType";
}

// Texts, floats and truths are read without touching Python's state: threads may, while the caller holds the GIL.
Cell read_cell(const void* place, CellValue& value, std::string& scratch) {
  PyObject* cell;
  std::memcpy(&cell, place, sizeof cell);
  if (cell == nullptr || cell == Py_None) return Cell::missing;
  if (PyUnicode_Check(cell)) {
    if (PyUnicode_IS_COMPACT_ASCII(cell)) {
      value.bytes = static_cast<const char*>(PyUnicode_DATA(cell));
      value.size = int64_t(PyUnicode_GET_LENGTH(cell));
      return Cell::text;
    }
    if (!as_utf8(cell, scratch)) return Cell::other;
    value.bytes = scratch.data();
    value.size = int64_t(scratch.size());
    return Cell::text;
  }
  if (PyFloat_Check(cell)) {
    value.number = PyFloat_AS_DOUBLE(cell);
    return std::isnan(value.number) ? Cell::missing : Cell::number;
  }
  if (PyBool_Check(cell)) {
    value.number = cell == Py_True;
    return Cell::number;
  }
  return is_named_missing(cell) ? Cell::missing : Cell::other;
}

// Integers too; for one thread that holds the GIL.
Cell read_number_cell(const void* place, CellValue& value, std::string& scratch) {
  PyObject* cell;
  std::memcpy(&cell, place, sizeof cell);
  if (cell == nullptr || !PyLong_CheckExact(cell)) return read_cell(place, value, scratch);
  value.number = PyLong_AsDouble(cell);
  if (value.number != -1.0 || PyErr_Occurred() == nullptr)
    return std::abs(value.number) < 0x1p63 ? Cell::number : Cell::other;
  PyErr_Clear();
  return Cell::other;
}

// A column, and what keeps its memory.
struct Held {
  Column column;
  nb::object owner;
  Py_buffer buffer{};
  std::vector<const char*> views;

  Held() = default;
  Held(const Held&) = delete;
  ~Held() {
    if (buffer.obj != nullptr) PyBuffer_Release(&buffer);
  }

  // Whether the column can be read as it stands.
  bool take(nb::handle array) {
    if (nb::hasattr(array, "__arrow_c_array__")) return take_arrow(array);
    return PyObject_CheckBuffer(array.ptr()) && take_buffer(array);
  }

 private:
  bool take_buffer(nb::handle array) {
    if (PyObject_GetBuffer(array.ptr(), &buffer, PyBUF_STRIDED_RO | PyBUF_FORMAT) != 0) {
      PyErr_Clear();
      buffer.obj = nullptr;
      return false;
    }
    if (buffer.ndim != 1 || buffer.format == nullptr) return false;
    std::string format = buffer.format;
    if (format.size() == 2 && (format[0] == '@' || format[0] == '=')) format.erase(0, 1);
    if (format.size() != 1) return false;
    const bool is_signed = std::string("bhilqn").find(format) != std::string::npos;
    const bool is_unsigned = std::string("BHILQN").find(format) != std::string::npos;
    const Py_ssize_t size = buffer.itemsize;
    if (is_signed || is_unsigned) {
      const Kind kinds[] = {Kind::int8, Kind::int16, Kind::int32, Kind::int64};
      const Kind unsigned_kinds[] = {Kind::uint8, Kind::uint16, Kind::uint32, Kind::uint64};
      const int width = size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
      column.kind = (is_signed ? kinds : unsigned_kinds)[width];
    } else if (format == "f") {
      column.kind = Kind::float32;
    } else if (format == "d") {
      column.kind = Kind::float64;
    } else if (format == "?") {
      column.kind = Kind::truth;
    } else if (format == "O") {
      column.kind = Kind::cells;
      column.read = read_cell;
    } else {
      return false;
    }
    column.rows = buffer.shape[0];
    column.data = static_cast<const char*>(buffer.buf);
    column.stride = buffer.strides[0];
    return true;
  }

  bool take_arrow(nb::handle array) {
    owner = array.attr("__arrow_c_array__")();
    const nb::tuple capsules = nb::cast<nb::tuple>(owner);
    const auto* schema =
        static_cast<const ArrowSchema*>(PyCapsule_GetPointer(nb::handle(capsules[0]).ptr(), "arrow_schema"));
    const auto* values =
        static_cast<const ArrowArray*>(PyCapsule_GetPointer(nb::handle(capsules[1]).ptr(), "arrow_array"));
    if (schema == nullptr || values == nullptr) throw nb::python_error();
    column.rows = values->length;
    column.offset = values->offset;
    if (schema->dictionary != nullptr) return false;
    const std::string format = schema->format;
    if (format == "n") {
      column.kind = Kind::nothing;
      return true;
    }
    static const std::pair<const char*, std::pair<Kind, int64_t>> known[] = {
        {"c", {Kind::int8, 1}},    {"C", {Kind::uint8, 1}},        {"s", {Kind::int16, 2}},
        {"S", {Kind::uint16, 2}},  {"i", {Kind::int32, 4}},        {"I", {Kind::uint32, 4}},
        {"l", {Kind::int64, 8}},   {"L", {Kind::uint64, 8}},       {"f", {Kind::float32, 4}},
        {"g", {Kind::float64, 8}}, {"b", {Kind::truth_bits, 0}},   {"u", {Kind::text32, 4}},
        {"U", {Kind::text64, 8}},  {"vu", {Kind::text_views, 16}},
    };
    for (const auto& [name, kind] : known) {
      if (format != name) continue;
      column.kind = kind.first;
      column.stride = kind.second;
      column.validity = values->null_count == 0 ? nullptr : static_cast<const uint8_t*>(values->buffers[0]);
      column.data = static_cast<const char*>(values->buffers[1]) + column.stride * column.offset;
      if (column.kind == Kind::text32 || column.kind == Kind::text64)
        column.bytes = static_cast<const char*>(values->buffers[2]);
      if (column.kind == Kind::text_views)
        for (int64_t n = 2; n + 1 < values->n_buffers; ++n)
          views.push_back(static_cast<const char*>(values->buffers[n]));
      column.buffers = views.data();
      return column.rows == 0 || values->buffers[1] != nullptr;
    }
    return false;
  }
};

// Values that an index holds are of one of these: what is the same in one may be another value in another.
enum Sort { TEXT, INTEGER, FLOAT32, FLOAT64, TRUTH, SORTS, NONE };

Sort sort_of(Kind kind) {
  switch (kind) {
    case Kind::text32:
    case Kind::text64:
    case Kind::text_views:
    case Kind::cells:
      return TEXT;
    case Kind::float32:
      return FLOAT32;
    case Kind::float64:
      return FLOAT64;
    case Kind::truth:
    case Kind::truth_bits:
      return TRUTH;
    case Kind::nothing:
    case Kind::uint64:
      return NONE;  // which an int64 can't hold
    default:
      return INTEGER;
  }
}

struct Spec {
  FieldReader reader;
  std::vector<double> edges;
  bool is_there = false;
  unsigned accepted = 0;  // bit s: values of the sort s
  std::array<std::unique_ptr<ValueIndex>, SORTS> indexes;
};

// How each column of a table is read: made once for a model.
struct ColumnPlan {
  int64_t fields;
  std::vector<Spec> specs;

  ColumnPlan(const ColumnPlan&) = delete;
  ColumnPlan(int64_t columns, int64_t field_count) : fields(field_count), specs(size_t(columns)) {}

  Spec& at(int64_t column, int64_t field, int64_t start) {
    require(column >= 0 && column < int64_t(specs.size()) && field >= 0 && field < fields && start >= 0,
            "no such column");
    Spec& spec = specs[size_t(column)];
    spec.is_there = true;
    spec.reader.field = int32_t(field);
    spec.reader.start = int32_t(start);
    return spec;
  }
  void add_bins(int64_t column, int64_t field, int64_t start, Array<const double> edges, int64_t bins, bool is_short) {
    Spec& spec = at(column, field, start);
    require(bins == 0 || bins == int64_t(edges.size()) + 1, "bins must be one more than edges");
    spec.reader.by = FieldReader::By::bins;
    spec.edges.assign(edges.data(), edges.data() + edges.size());
    spec.reader.edges = spec.edges.data();
    spec.reader.edge_count = int64_t(spec.edges.size());
    spec.reader.bins = bins;
    spec.reader.is_short = is_short;
  }
  void add_scale(int64_t column, int64_t field, int64_t start, double low, double high, bool is_short) {
    Spec& spec = at(column, field, start);
    spec.reader.by = FieldReader::By::scale;
    spec.reader.low = low, spec.reader.high = high;
    spec.reader.is_short = is_short;
  }
  void add_values(int64_t column, int64_t field, int64_t start, bool texts, bool numbers, uint64_t seed, int64_t most) {
    Spec& spec = at(column, field, start);
    spec.reader.by = FieldReader::By::values;
    spec.accepted = (texts ? 1u << TEXT : 0u) | (numbers ? 0b11110u : 0u);
    for (auto& index : spec.indexes) index = std::make_unique<ValueIndex>(seed, most);
  }
  void learn(int64_t column, nb::object array, Array<const int32_t> features) {
    require(column >= 0 && column < int64_t(specs.size()), "no such column");
    Spec& spec = specs[size_t(column)];
    Held held;
    require(held.take(array) && held.column.rows == int64_t(features.size()), "one feature for each value");
    const Sort sort = sort_of(held.column.kind);
    if (sort == NONE || spec.indexes[sort] == nullptr || held.column.kind == Kind::cells) return;
    nb::gil_scoped_release released;
    attfm::learn_values(held.column, features.data(), *spec.indexes[sort]);
  }
};

// A table whose columns a plan can read, but for those that are `slow`.
struct BoundColumns {
  nb::object plan;  // kept alive: it has the indexes
  int64_t fields = 0, rows = 0;
  std::vector<std::unique_ptr<Held>> held;
  std::vector<Array<const int32_t>> features;
  std::vector<Column> columns;
  std::vector<FieldReader> readers;
  std::vector<int64_t> numbers, slow;
  bool has_cells = false, has_number_cells = false, has_unknown = false;

  BoundColumns(const BoundColumns&) = delete;
  BoundColumns(nb::object of_plan, nb::sequence arrays, int64_t row_count) : plan(of_plan), rows(row_count) {
    ColumnPlan& specs = nb::cast<ColumnPlan&>(of_plan);
    fields = specs.fields;
    require(nb::len(arrays) == specs.specs.size(), "one array for each column");
    for (int64_t n = 0; n < int64_t(specs.specs.size()); ++n)
      if (!add(specs.specs[size_t(n)], arrays[size_t(n)], n)) slow.push_back(n);
  }

  bool add(const Spec& spec, nb::object array, int64_t number) {
    if (array.is_none()) return false;
    auto taken = std::make_unique<Held>();
    FieldReader reader = spec.reader;
    if (PyTuple_Check(array.ptr())) {  // codes, and the feature of each
      if (!taken->take(array[0])) return false;
      features.push_back(nb::cast<Array<const int32_t>>(array[1]));
      reader.by = FieldReader::By::codes;
      reader.feature_of = features.back().data();
      reader.codes = int64_t(features.back().size());
      const Sort sort = sort_of(taken->column.kind);
      require(sort == INTEGER || taken->column.kind == Kind::uint64, "codes must be integers");
    } else if (!spec.is_there || !taken->take(array)) {
      return false;
    } else if (reader.by == FieldReader::By::values) {
      const Sort sort = sort_of(taken->column.kind);
      if (taken->column.kind != Kind::nothing && (sort == NONE || !(spec.accepted >> sort & 1))) return false;
      reader.index = sort == NONE ? spec.indexes[TEXT].get() : spec.indexes[sort].get();
    } else if (sort_of(taken->column.kind) == TEXT && taken->column.kind != Kind::cells) {
      return false;
    } else if (taken->column.kind == Kind::cells) {
      taken->column.read = read_number_cell;
      has_number_cells = true;
    }
    require(taken->column.rows == rows, "every column must have as many rows");
    has_cells = has_cells || taken->column.kind == Kind::cells;
    columns.push_back(taken->column);
    readers.push_back(std::move(reader));
    numbers.push_back(number);
    held.push_back(std::move(taken));
    return true;
  }

  // Adds the missing and unknown values of each column to `told`; returns whether some are wrong, and which columns
  // have values that are not kept, whose ids are -1.
  nb::tuple encode(int64_t first, Array<int32_t> ids, Maybe<float> values, Array<int64_t> told, int threads) {
    require(ids.ndim() == 2 && int64_t(ids.shape(1)) == fields, "ids must be (rows, fields)");
    const int64_t count = int64_t(ids.shape(0));
    require(first >= 0 && first + count <= rows, "no such rows");
    require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024");
    require(told.ndim() == 2 && told.shape(1) == 2, "told must be (columns, 2)");
    float* scaled = pointer(values, count * fields, "values must be as ids");
    for (const FieldReader& reader : readers)
      require(reader.by != FieldReader::By::scale || scaled != nullptr, "scales need values");
    std::vector<attfm::Told> found(columns.size(), attfm::Told{});
    const attfm::EncodeTask task{
        columns.data(), readers.data(), int64_t(columns.size()),       first, count, fields, ids.data(),
        scaled,         found.data(),   has_number_cells ? 1 : threads};
    {
      std::optional<nb::gil_scoped_release> released;
      if (!has_cells) released.emplace();
      attfm::encode_columns(task);
    }
    bool wrong = false;
    nb::list absent;
    for (size_t n = 0; n < columns.size(); ++n) {
      require(numbers[n] < int64_t(told.shape(0)), "told must be (columns, 2)");
      told.data()[2 * numbers[n]] += found[n].missing;
      told.data()[2 * numbers[n] + 1] += found[n].unknown;
      wrong = wrong || found[n].wrong > 0;
      has_unknown = has_unknown || found[n].unknown > 0;
      if (found[n].absent > 0) absent.append(numbers[n]);
    }
    return nb::make_tuple(wrong, absent);
  }
};

}  // namespace

void bind_columns(nb::module_& m) {
  nb::class_<ColumnPlan>(m, "ColumnPlan")
      .def(nb::init<int64_t, int64_t>(), nb::arg("columns"), nb::arg("fields"))
      .def("add_bins", &ColumnPlan::add_bins, nb::arg("column"), nb::arg("field"), nb::arg("start"), nb::arg("edges"),
           nb::arg("bins"), nb::arg("is_short"))
      .def("add_scale", &ColumnPlan::add_scale, nb::arg("column"), nb::arg("field"), nb::arg("start"), nb::arg("low"),
           nb::arg("high"), nb::arg("is_short"))
      .def("add_values", &ColumnPlan::add_values, nb::arg("column"), nb::arg("field"), nb::arg("start"),
           nb::arg("texts"), nb::arg("numbers"), nb::arg("seed"), nb::arg("most"))
      .def("learn", &ColumnPlan::learn, nb::arg("column"), nb::arg("array"), nb::arg("features"));
  nb::class_<BoundColumns>(m, "BoundColumns")
      .def(nb::init<nb::object, nb::sequence, int64_t>(), nb::arg("plan"), nb::arg("arrays"), nb::arg("rows"))
      .def_ro("slow", &BoundColumns::slow)
      .def_ro("has_unknown", &BoundColumns::has_unknown)
      .def("encode", &BoundColumns::encode, nb::arg("first"), nb::arg("ids"), nb::arg("values").none(), nb::arg("told"),
           nb::arg("threads"));
}
