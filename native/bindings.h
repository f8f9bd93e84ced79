// What the bindings share: arrays of Python, and checks that end in an exception there.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <stdexcept>

#include "kernels.h"

namespace nb = nanobind;

template <class T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
template <class T>
using Maybe = std::optional<Array<T>>;

inline void require(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

template <class T>
T* pointer(const Maybe<T>& array, int64_t size, const char* what) {
  if (!array) return nullptr;
  require(int64_t(array->size()) == size, what);
  return array->data();
}

// Shapes of the inputs; the ranges of ids and pairs are checked here too: a wrong one would read foreign memory.
attfm::PoolTask task_of(const Array<const float>& embeddings, const Maybe<const int32_t>& ids,
                        const Maybe<const float>& values, const Maybe<const int64_t>& offsets, int64_t fields,
                        const Maybe<const float>& W, const Maybe<const float>& b, const Maybe<const float>& h,
                        const Maybe<const float>& bias, const Maybe<const float>& gate,
                        const Array<const int32_t>& pairs, bool plain, double scale, double dropout,
                        double pair_dropout, uint64_t seed, int threads, bool pooled = true);

// Adds `ColumnPlan` and `BoundColumns` to the module.
void bind_columns(nb::module_& m);

// Adds `score` and `find_remembered` to the module.
void bind_scoring(nb::module_& m);
// Adds `Lookup`.
void bind_lookup(nb::module_& m);
// Adds `rank_items` and `rank`.
void bind_ranking(nb::module_& m);
