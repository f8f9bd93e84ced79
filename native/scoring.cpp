// From encoded rows to logits, forward only: chunks of rows, each thread with chunks of its own.
#include "scoring.h"

#include <algorithm>
#include <vector>

#include "pair_index.h"
#include "threads.h"

namespace attfm {
namespace {

struct ScoreJob {
  const Kernels& set;
  const ScoreTask& task;
  int64_t chunk;
};

void score_part(void* context, int part, int parts) {
  const ScoreJob& job = *static_cast<ScoreJob*>(context);
  const ScoreTask& task = job.task;
  const PoolTask& all = task.pool;
  const int64_t chunks = (all.batch + job.chunk - 1) / job.chunk;
  std::vector<float> pooled(size_t(task.projection != nullptr ? job.chunk * all.dim : 0));
  std::vector<uint16_t> index(size_t(task.distinct ? job.chunk * all.pairs : 0));
  for (int64_t c = chunks * part / parts; c < chunks * (part + 1) / parts; ++c) {
    const int64_t start = c * job.chunk, count = std::min(job.chunk, all.batch - start);
    if (task.projection != nullptr) {
      PoolTask some = all;
      some.batch = count;
      some.threads = 1;
      some.pooled = pooled.data();
      if (all.offsets != nullptr) {
        some.offsets += start * all.fields;
      } else {
        some.ids += start * all.fields;
        if (all.values != nullptr) some.values += start * all.fields;
      }
      if (task.distinct) {
        const PairIndex found =
            find_pairs(some.ids, count, all.fields, all.first, all.second, all.pairs, 1, index.data());
        const DistinctTask by_pair{some, int64_t(found.members.size() / 2), index.data(), found.offsets.data(),
                                   found.members.data()};
        job.set.distinct_forward(by_pair);
      } else {
        job.set.pool_forward(some);
      }
    }
    job.set.add_logits(task, pooled.data(), start, count);
  }
}

}  // namespace

void score(const Kernels& set, const ScoreTask& task, int64_t chunk) {
  // Not fewer chunks than threads, so that none waits; and 32 MB for the numbers of a chunk's distinct pairs.
  const PoolTask& all = task.pool;
  chunk = std::min(chunk, (all.batch + all.threads - 1) / all.threads);
  if (task.distinct) chunk = std::min(chunk, std::max<int64_t>(256, (int64_t(1) << 24) / all.pairs));
  ScoreJob job{set, task, std::max<int64_t>(1, chunk)};
  run_parts(all.threads, score_part, &job);
}

}  // namespace attfm
