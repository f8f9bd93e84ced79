// Many items for one context. Entries, items or pairs lie side by side in the lanes of vectors, BLOCK at once, so that
// no sum runs across lanes:
//
//   e = h . relu(W (v_i * x) + b) + c = h . relu(W_i x + b) + c      with W_i = W diag(v_i), made once for a request
//   record of an entry x of the item's field j, with E_i = exp(e_ij - M):
//     M = max_i e_ij, D = sum_i E_i, N = sum_i E_i g_ij s_ij
//   logit of an item = base + plain + scale (sum of exp(M - most) N) / (sum of exp(M - most) D)
//
// where the last two sums run over the records of the item's entries and over the pairs within either side.
#include "ranking.h"

#include "kernels.h"
#include "ranking_block.h"
#include "threads.h"

namespace attfm::ATTFM_TARGET {
namespace {

struct ItemsJob {
  const ItemsTask& task;
  const Packed& net;
  float* workspaces;

  int64_t pairs() const { return task.fields * (task.fields - 1) / 2; }
  int64_t floats() const {
    const int64_t blocks = (task.fields + 1) * net.dim + 2 + net.outputs + pairs() * (1 + net.outputs) + 8;
    return blocks * BLOCK + ROUNDING;
  }
};

void items_part(void* context, int part, int parts) {
  const ItemsJob& job = *static_cast<ItemsJob*>(context);
  const ItemsTask& task = job.task;
  const Packed& net = job.net;
  const int64_t m = task.fields, dim = net.dim, P = job.pairs(), outputs = net.outputs;
  Memory memory{job.workspaces + part * job.floats()};
  float* x = memory.take(m * dim * BLOCK);
  float* q = memory.take(dim * BLOCK);
  float* e = memory.take(P * BLOCK);
  float *most = memory.take(BLOCK), *total = memory.take(BLOCK), *effects = memory.take(outputs * BLOCK);
  float* s = memory.take((P * outputs + 4) * BLOCK);
  const Range mine = share((task.items + BLOCK - 1) / BLOCK, part, parts);
  for (int64_t block = mine.start; block < mine.stop; ++block) {
    const int64_t first = block * BLOCK, n = smaller(BLOCK, task.items - first);
    for (int64_t f = 0; f < m; ++f)
      columns_of(task.vectors, dim, task.entries + first * m + f, m, n, x + f * dim * BLOCK);
    int64_t p = 0;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = i + 1; j < m; ++j, ++p) {
        const float *xi = x + i * dim * BLOCK, *xj = x + j * dim * BLOCK;
        for (int64_t k = 0; k < dim * BLOCK; k += LANES) store(q + k, load(xi + k) * load(xj + k));
        products(q, net.projection, dim, outputs, s + p * outputs * BLOCK);
        if (net.hidden > 0) net.logits(q, net.W, task.bias[p], e + p * BLOCK);
      }
    if (net.hidden == 0)
      for (int64_t k = 0; k < P * BLOCK; ++k) e[k] = 0.0f;
    sum_pairs(e, s, P, outputs, task.gate, 1, most, total, effects);
    for (int64_t lane = 0; lane < n; ++lane) {
      const float share = net.hidden > 0 ? 1.0f / total[lane] : 1.0f;
      if (net.hidden > 0) task.log_sum[first + lane] = most[lane] + __builtin_logf(total[lane]);
      for (int64_t o = 0; o < outputs; ++o)
        task.effect[(first + lane) * outputs + o] = share * effects[o * BLOCK + lane];
    }
  }
}

struct RankJob {
  const RankTask& task;
  const Packed& net;
  int64_t stride;  // floats of a record: with attention M, D, plain and N of each output; without, plain only
  float* records;  // (entries, stride)
  const int32_t* const* listed;  // (fields) entries of each
  const int64_t* counts;         // (fields)
  float* scaled;                 // W_i of each context field; without attention nothing
  float* across;                 // packed p * v_i of each context field and output; without attention sum of g_ij v_i p
  float most, *sums;             // of the pairs within the context: most, and total and effects of each output
  float* workspaces;
  int64_t workspace;
};

// The pairs within the context, in the lanes: sets job.most and job.sums.
void sum_context(RankJob& job, Memory memory) {
  const RankTask& task = job.task;
  const Packed& net = job.net;
  const int64_t C = task.context, P = C * (C - 1) / 2, dim = net.dim, outputs = net.outputs;
  const int64_t blocks = (P + BLOCK - 1) / BLOCK;
  float *x = memory.take(dim * BLOCK), *s = memory.take(round_up(outputs, 4) * BLOCK), *e = memory.take(blocks * BLOCK);
  float* effect = memory.take(outputs * blocks * BLOCK);
  int64_t i = 0, j = 1;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = block * BLOCK, n = smaller(BLOCK, P - first);
    for (int64_t lane = 0; lane < BLOCK; ++lane) {
      const float *vi = task.context_vectors + i * dim, *vj = task.context_vectors + j * dim;
      for (int64_t k = 0; k < dim; ++k) x[k * BLOCK + lane] = lane < n ? vi[k] * vj[k] : 0.0f;
      if (lane < n && ++j == C) ++i, j = i + 1;
    }
    if (net.hidden > 0) net.logits(x, net.W, 0.0f, e + first);
    products(x, net.projection, dim, outputs, s);
    for (int64_t lane = 0; lane < BLOCK; ++lane) {
      const float gate = lane < n ? task.context_gate[first + lane] : 0.0f;
      if (net.hidden == 0)
        e[first + lane] = 0.0f;
      else
        e[first + lane] = lane < n ? e[first + lane] + task.context_bias[first + lane] : NOTHING;
      for (int64_t o = 0; o < outputs; ++o) effect[(o * blocks + block) * BLOCK + lane] = gate * s[o * BLOCK + lane];
    }
  }
  job.most = NOTHING;
  for (int64_t p = 0; p < P; ++p) job.most = e[p] > job.most ? e[p] : job.most;
  Vec total{};
  for (int64_t p = 0; p < blocks * BLOCK; p += LANES) {
    const Vec share = exponential(load(e + p) - job.most);
    total += share;
    store(e + p, share);
  }
  job.sums[0] = sum(total);
  for (int64_t o = 0; o < outputs; ++o) {
    Vec all{};
    for (int64_t p = 0; p < blocks * BLOCK; p += LANES) all += load(e + p) * load(effect + o * blocks * BLOCK + p);
    job.sums[1 + o] = sum(all);
  }
}

// plain (outputs, BLOCK) += what is remembered of n entries of a field with the context.
void add_remembered(const RankTask& task, int64_t field, const int32_t* entries, int64_t n, float* plain) {
  const int64_t outputs = task.network.outputs;
  int64_t keys[BLOCK];
  const float* effects[BLOCK];
  for (int64_t r = task.memory_starts[field]; r < task.memory_starts[field + 1]; ++r) {
    // Three passes: memory answers while the other entries are worked on.
    for (int64_t lane = 0; lane < n; ++lane) {
      keys[lane] = task.memory_keys[r] + task.memory_steps[r] * task.level[entries[lane]];
      __builtin_prefetch(task.slots + int64_t((uint64_t(keys[lane]) * 0x9E3779B97F4A7C15ull) >> task.shift));
    }
    for (int64_t lane = 0; lane < n; ++lane) {
      const int64_t key = keys[lane];
      int64_t slot = int64_t((uint64_t(key) * 0x9E3779B97F4A7C15ull) >> task.shift), there = task.slots[slot];
      while ((there != key) & (there != -1)) {
        slot = (slot + 1) & task.mask;
        there = task.slots[slot];
      }
      const float* const either[] = {task.unknown + r * outputs, task.memory_effects + slot * outputs};
      effects[lane] = either[there == key];
      __builtin_prefetch(effects[lane]);
    }
    for (int64_t lane = 0; lane < n; ++lane)
      for (int64_t o = 0; o < outputs; ++o) plain[o * BLOCK + lane] += effects[lane][o];
  }
}

// The records of n <= BLOCK entries of one field.
void write_records(const RankJob& job, int64_t field, const int32_t* entries, int64_t n, Memory memory) {
  const RankTask& task = job.task;
  const Packed& net = job.net;
  const int64_t C = task.context, dim = net.dim, outputs = net.outputs;
  float *x = memory.take(dim * BLOCK), *plain = memory.take(outputs * BLOCK);
  float *most = memory.take(BLOCK), *total = memory.take(BLOCK), *effects = memory.take((outputs + 4) * BLOCK);
  float *e = memory.take(C * BLOCK), *s = memory.take((C * outputs + 4) * BLOCK);
  for (int64_t k = 0; k < outputs * BLOCK; ++k) plain[k] = 0.0f;
  add_remembered(task, field, entries, n, plain);
  if (dim > 0) columns_of(task.vectors, dim, entries, 1, n, x);
  if (net.hidden > 0) {
    products(x, job.across, dim, C * outputs, s);
    for (int64_t i = 0; i < C; ++i)
      net.logits(x, job.scaled + i * dim * net.columns, task.bias[i * task.fields + field], e + i * BLOCK);
    sum_pairs(e, s, C, outputs, task.gate + field, task.fields, most, total, effects);
  } else if (dim > 0) {
    products(x, job.across + field * dim * round_up(outputs, 4), dim, outputs, effects);
    for (int64_t k = 0; k < outputs * BLOCK; ++k) plain[k] += effects[k];
  }
  for (int64_t lane = 0; lane < n; ++lane) {
    float* to = job.records + entries[lane] * job.stride;
    if (net.hidden > 0) {
      to[0] = most[lane], to[1] = total[lane];
      for (int64_t o = 0; o < outputs; ++o) to[2 + outputs + o] = effects[o * BLOCK + lane];
      to += 2;
    }
    for (int64_t o = 0; o < outputs; ++o) to[o] = plain[o * BLOCK + lane];
  }
}

void records_part(void* context, int part, int parts) {
  const RankJob& job = *static_cast<RankJob*>(context);
  int64_t blocks = 0;
  for (int64_t f = 0; f < job.task.fields; ++f) blocks += (job.counts[f] + BLOCK - 1) / BLOCK;
  const Range mine = share(blocks, part, parts);
  int64_t block = 0;
  for (int64_t f = 0; f < job.task.fields; ++f)
    for (int64_t first = 0; first < job.counts[f]; first += BLOCK, ++block)
      if (block >= mine.start && block < mine.stop)
        write_records(job, f, job.listed[f] + first, smaller(BLOCK, job.counts[f] - first),
                      Memory{job.workspaces + part * job.workspace});
}

// The logits of LANES items at once; of those beyond the count nothing is written.
void items_logits(const RankJob& job, int64_t first, int64_t n, float* buffer) {
  const RankTask& task = job.task;
  const int64_t m = task.fields, outputs = job.net.outputs, stride = job.stride;
  const bool attention = job.net.hidden > 0;
  for (int64_t lane = 0; lane < LANES; ++lane) {
    const int32_t* entries = task.entries + int64_t(task.items[first + (lane < n ? lane : 0)]) * m;
    for (int64_t f = 0; f < m; ++f) {
      const float* from = job.records + entries[f] * stride;
      for (int64_t k = 0; k < stride; ++k) buffer[(f * stride + k) * LANES + lane] = from[k];
    }
  }
  float own[LANES];
  Vec most = broadcast(job.most), within{}, share{}, total{};
  if (attention) {
    for (int64_t lane = 0; lane < LANES; ++lane) own[lane] = task.log_sum[task.items[first + (lane < n ? lane : 0)]];
    const Vec log_sum = load(own);
    most = log_sum > most ? log_sum : most;
    for (int64_t f = 0; f < m; ++f) {
      const Vec x = load(buffer + f * stride * LANES);
      most = x > most ? x : most;
    }
    within = exponential(job.most - most), share = exponential(log_sum - most);
    total = within * job.sums[0] + share;
    for (int64_t f = 0; f < m; ++f) {
      float* at = buffer + f * stride * LANES;
      const Vec x = exponential(load(at) - most);
      store(at, x);
      total += x * load(at + LANES);
    }
  }
  for (int64_t o = 0; o < outputs; ++o) {
    float effect[LANES];
    for (int64_t lane = 0; lane < LANES; ++lane) {
      const int64_t item = task.items[first + (lane < n ? lane : 0)];
      own[lane] = task.plain[item * outputs + o], effect[lane] = task.effect[item * outputs + o];
    }
    Vec logit = load(own) + task.base[o];
    for (int64_t f = 0; f < m; ++f) logit += load(buffer + (f * stride + (attention ? 2 : 0) + o) * LANES);
    if (attention) {
      Vec sums = within * job.sums[1 + o] + share * load(effect);
      for (int64_t f = 0; f < m; ++f) {
        const float* at = buffer + f * stride * LANES;
        sums += load(at) * load(at + (2 + outputs + o) * LANES);
      }
      logit += task.scale * sums / total;
    } else {
      logit += task.scale * (load(effect) + job.sums[1 + o]);
    }
    for (int64_t lane = 0; lane < n; ++lane) task.logits[(first + lane) * outputs + o] = logit[lane];
  }
}

void logits_part(void* context, int part, int parts) {
  const RankJob& job = *static_cast<RankJob*>(context);
  float* buffer = job.workspaces + part * job.workspace;
  const Range mine = share((job.task.count + LANES - 1) / LANES, part, parts);
  for (int64_t block = mine.start; block < mine.stop; ++block) {
    const int64_t first = block * LANES;
    items_logits(job, first, smaller(LANES, job.task.count - first), buffer);
  }
}

// Lists the entries that the items have, field by field, each once: lists has (fields, count) places.
void find_entries(const RankTask& task, uint8_t* seen, int32_t* lists, const int32_t** listed, int64_t* counts) {
  memset(seen, 0, size_t(task.entry_count));
  for (int64_t f = 0; f < task.fields; ++f) listed[f] = lists + f * task.count, counts[f] = 0;
  for (int64_t n = 0; n < task.count; ++n) {
    const int32_t* entries = task.entries + int64_t(task.items[n]) * task.fields;
    for (int64_t f = 0; f < task.fields; ++f) {
      lists[f * task.count + counts[f]] = entries[f];
      counts[f] += !seen[entries[f]];
      seen[entries[f]] = 1;
    }
  }
}

}  // namespace

void rank_items(const ItemsTask& task) {
  Memory memory{static_cast<float*>(scratch(0, size_t(4 * Packed::floats(task.network))))};
  const Packed net(task.network, memory);
  ItemsJob job{task, net, nullptr};
  job.workspaces = static_cast<float*>(scratch(1, size_t(4 * job.floats() * task.threads)));
  run_parts(task.threads, items_part, &job);
}

void rank(const RankTask& task) {
  const PairNetwork& network = task.network;
  const int64_t C = task.context, m = task.fields, dim = network.dim, outputs = network.outputs;
  const bool attention = network.attention_dim > 0;
  const int64_t hidden = round_up(network.attention_dim, 4), wide = round_up(outputs, 4);
  const int64_t across = dim * (attention ? round_up(C * outputs, 4) : m * wide);
  const int64_t packed = Packed::floats(network) + C * dim * hidden + across + outputs + 64;
  Memory memory{static_cast<float*>(scratch(0, size_t(4 * packed)))};
  const Packed net(network, memory);
  RankJob job{
      task,    net, attention ? 2 + 2 * outputs : outputs, nullptr, nullptr, nullptr, nullptr, nullptr, 0.0f, nullptr,
      nullptr, 0};
  job.scaled = memory.take(C * dim * hidden), job.across = memory.take(across), job.sums = memory.take(1 + outputs);
  const float *v = task.context_vectors, *p = network.projection;
  if (attention) {
    for (int64_t i = 0; i < C; ++i)
      pack(dim, network.attention_dim, job.scaled + i * dim * hidden,
           [&](int64_t k, int64_t t) { return v[i * dim + k] * network.W[k * network.attention_dim + t]; });
    pack(dim, C * outputs, job.across,
         [&](int64_t k, int64_t c) { return v[c / outputs * dim + k] * p[k * outputs + c % outputs]; });
  } else if (dim > 0) {
    for (int64_t f = 0; f < m; ++f)
      pack(dim, outputs, job.across + f * dim * wide, [&](int64_t k, int64_t o) {
        float total = 0;
        for (int64_t i = 0; i < C; ++i) total += task.gate[i * m + f] * v[i * dim + k];
        return task.scale * total * p[k * outputs + o];
      });
  }

  const int64_t blocks = (C * (C - 1) / 2 + BLOCK - 1) / BLOCK;
  const int64_t of_context = (dim + wide + blocks * (1 + outputs)) * BLOCK;
  const int64_t of_records = (dim + 2 * outputs + 10 + C * (1 + outputs)) * BLOCK;
  const int64_t of_items = m * job.stride * LANES;
  job.workspace = round_up(larger(of_context, larger(of_records, of_items)) + ROUNDING, 16);
  job.workspaces = static_cast<float*>(scratch(1, size_t(4 * job.workspace * task.threads)));
  job.records = static_cast<float*>(scratch(2, size_t(4 * job.stride * task.entry_count)));
  int64_t* counts = static_cast<int64_t*>(scratch(3, size_t(16 * m)));
  const int32_t** listed = reinterpret_cast<const int32_t**>(counts + m);
  if (task.listed != nullptr) {
    for (int64_t f = 0; f < m; ++f)
      listed[f] = task.listed + task.starts[f], counts[f] = task.starts[f + 1] - task.starts[f];
  } else {
    uint8_t* seen = static_cast<uint8_t*>(scratch(4, size_t(task.entry_count)));
    int32_t* lists = static_cast<int32_t*>(scratch(5, size_t(4 * m * task.count)));
    find_entries(task, seen, lists, listed, counts);
  }
  job.listed = listed, job.counts = counts;
  job.most = NOTHING;
  for (int64_t o = 0; o <= outputs; ++o) job.sums[o] = 0.0f;
  if (dim > 0) sum_context(job, Memory{job.workspaces});
  run_parts(task.threads, records_part, &job);
  run_parts(task.threads, logits_part, &job);
}

}  // namespace attfm::ATTFM_TARGET
