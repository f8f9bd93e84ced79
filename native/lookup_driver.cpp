// Scoring by lookup on awkward shapes, every instruction set against the formula in double: a part of the driver.
#include "lookup_driver.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

#include "lookup.h"

namespace {

constexpr int SIZE = 5;  // features of each field

struct Shape {
  int batch, fields, outputs, machines, dim, hidden;
  bool attention, tables, computed, bags;
};

std::mt19937 generator(2);

std::vector<float> normal(size_t n, float scale) {
  std::vector<float> values(n);
  std::normal_distribution<float> draw(0.0f, scale);
  for (float& value : values) value = draw(generator);
  return values;
}

// Whether every set gives the logits of the formula, all rows at once and one by one.
bool agrees(const Shape& s, const std::vector<const attfm::Kernels*>& sets) {
  const int m = s.fields, O = s.outputs, M = s.machines, k = s.dim, features = m * SIZE;
  const int used = s.attention ? M * (1 + O) : O, width = used <= 2 ? used : (used + 3) / 4 * 4;
  std::vector<int32_t> first, second, origin, step, mask, computed_first, computed_second;
  int cells = 0;
  for (int i = 0; i < m; ++i)
    for (int j = i + 1; j < m; ++j) {
      const bool table = s.tables && (!s.computed || (i + j) % 2 == 0) && !(s.bags && j == m - 1);
      if (!table && s.computed) computed_first.push_back(i), computed_second.push_back(j);
      first.push_back(i), second.push_back(j);
      origin.push_back(table ? cells - i * SIZE * SIZE - j * SIZE : -1);
      step.push_back(table ? SIZE : 0), mask.push_back(table ? -1 : 0);
      cells += table ? SIZE * SIZE : 0;
    }
  for (size_t p = 0; p < origin.size(); ++p)
    if (mask[p] == 0) origin[p] = cells;
  std::vector<float> table = normal(size_t(cells + 1) * width, 0.3f);
  for (int cell = 0; cell < cells && s.attention; ++cell)
    for (int n = 0; n < M; ++n) table[size_t(cell) * width + n * (1 + O)] = std::exp(table[size_t(cell) * width + n]);
  std::fill(table.end() - width, table.end(), 0.0f);

  const int computed = int(computed_first.size());
  const std::vector<float> linear = normal(size_t(features) * O, 1), V = normal(size_t(M) * features * k, 0.5f),
                           P = normal(size_t(M) * k * O, 1), factors = normal(size_t(M) * computed * O, 1),
                           W = normal(size_t(M) * k * s.hidden, 0.5f), b = normal(size_t(M) * s.hidden, 0.5f),
                           h = normal(size_t(M) * s.hidden, 1), biases = normal(size_t(M) * computed, 1);
  std::vector<double> base(size_t(O), 0.25);
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets;
  std::vector<float> values;
  for (int row = 0; row < s.batch; ++row)
    for (int f = 0; f < m; ++f) {
      offsets.push_back(int64_t(ids.size()));
      for (int n = 0; n < (s.bags && f == m - 1 ? 1 + row % 3 : 1); ++n) {
        ids.push_back(f * SIZE + int(generator() % SIZE));
        values.push_back(s.bags && f == m - 1 ? 0.5f + float(n) : 1.0f);
      }
    }
  offsets.push_back(int64_t(ids.size()));

  attfm::LookupTask task{};
  task.fields = m, task.outputs = O, task.machines = M, task.attention = s.attention;
  task.base = base.data(), task.linear = linear.data();
  task.pairs = s.tables ? int64_t(origin.size()) : 0, task.width = width, task.ask_ahead = s.batch % 2 == 0;
  task.origin = origin.data(), task.step = step.data(), task.mask = mask.data(), task.cells = table.data();
  task.computed = computed, task.features = features, task.dim = k, task.hidden = s.hidden;
  task.computed_first = computed_first.data(), task.computed_second = computed_second.data();
  task.embeddings = V.data(), task.projections = P.data(), task.factors = factors.data();
  task.W = W.data(), task.b = b.data(), task.h = h.data(), task.biases = biases.data();
  task.batch = s.batch, task.ids = ids.data(), task.values = s.bags ? values.data() : nullptr;
  task.offsets = s.bags ? offsets.data() : nullptr;

  std::vector<double> expected;
  for (int row = 0; row < s.batch; ++row) {
    std::vector<double> logits = base, E(size_t(M), 0.0), N(size_t(M * O), 0.0), v(size_t(m * k));
    const auto at = [&](int f) { return offsets[size_t(row * m + f)]; };
    for (int64_t n = at(0); n < at(m); ++n)
      for (int c = 0; c < O; ++c) logits[c] += double(values[n]) * linear[size_t(ids[n]) * O + c];
    for (size_t p = 0; p < origin.size(); ++p) {
      if (!s.tables || mask[p] == 0) continue;
      const float* cell =
          table.data() + size_t(origin[p] + ids[at(first[p])] * step[p] + ids[at(second[p])]) * size_t(width);
      for (int n = 0; n < M && s.attention; ++n) {
        E[n] += cell[n * (1 + O)];
        for (int c = 0; c < O; ++c) N[n * O + c] += cell[n * (1 + O) + 1 + c];
      }
      for (int c = 0; c < O && !s.attention; ++c) logits[c] += cell[c];
    }
    for (int n = 0; n < M; ++n) {
      std::fill(v.begin(), v.end(), 0.0);
      for (int f = 0; f < m; ++f)
        for (int64_t e = at(f); e < at(f + 1); ++e)
          for (int l = 0; l < k; ++l) v[f * k + l] += double(values[e]) * V[(size_t(n) * features + ids[e]) * k + l];
      for (int p = 0; p < computed; ++p) {
        std::vector<double> hidden(b.begin() + n * s.hidden, b.begin() + (n + 1) * s.hidden), pq(size_t(O), 0.0);
        for (int l = 0; l < k; ++l) {
          const double q = v[computed_first[p] * k + l] * v[computed_second[p] * k + l];
          for (int c = 0; c < O; ++c) pq[c] += q * P[(size_t(n) * k + l) * O + c];
          for (int t = 0; t < s.hidden; ++t) hidden[t] += q * W[(size_t(n) * k + l) * s.hidden + t];
        }
        double e = biases[n * computed + p];
        for (int t = 0; t < s.hidden; ++t) e += std::max(hidden[t], 0.0) * h[n * s.hidden + t];
        for (int c = 0; c < O; ++c) {
          pq[c] *= factors[(size_t(n) * computed + p) * O + c];
          if (!s.attention) logits[c] += pq[c];
          N[n * O + c] += std::exp(e) * pq[c];
        }
        E[n] += std::exp(e);
      }
      for (int c = 0; c < O && s.attention && E[n] > 0; ++c) logits[c] += N[n * O + c] / E[n];
    }
    expected.insert(expected.end(), logits.begin(), logits.end());
  }
  for (const attfm::Kernels* set : sets)
    for (int piece : {std::max(s.batch, 1), 1}) {
      std::vector<double> logits(size_t(s.batch * O));
      task.logits = logits.data();
      for (int start = 0; start < s.batch; start += piece) set->lookup(task, start, piece);
      for (size_t n = 0; n < logits.size(); ++n)
        if (!(std::abs(logits[n] - expected[n]) < 2e-4 * (1 + std::abs(expected[n])))) return false;
    }
  return true;
}

}  // namespace

Failures check_lookup(const std::vector<const attfm::Kernels*>& sets) {
  Failures found{0, 0};
  for (const auto& [batch, fields, outputs, machines, dim, hidden] : {std::array{0, 3, 1, 1, 4, 16},
                                                                      {1, 2, 1, 1, 1, 16},
                                                                      {33, 3, 3, 1, 17, 16},
                                                                      {7, 39, 1, 1, 5, 32},
                                                                      {12, 14, 1, 5, 16, 16},
                                                                      {9, 6, 4, 3, 3, 48},
                                                                      {5, 1, 2, 2, 4, 16},
                                                                      {8, 5, 1, 7, 4, 16}})
    for (const bool attention : {false, true})
      for (const int what : {1, 2, 3})
        for (const bool bags : {false, true}) {
          const Shape shape{batch,  fields,    outputs,         machines,        dim,
                            hidden, attention, (what & 1) != 0, (what & 2) != 0, bags && (what & 2) != 0};
          ++found.runs;
          if (agrees(shape, sets)) continue;
          ++found.failures;
          std::printf("lookups differ: %d rows, %d fields, %d outputs, %d machines, attention %d, tables %d\n", batch,
                      fields, outputs, machines, attention, what);
        }
  return found;
}
