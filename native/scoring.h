// From encoded rows to logits, forward only.
#pragma once

#include "kernels.h"

namespace attfm {

// Scores all rows, `chunk` at once; with task.distinct a chunk has at most 65,536 rows.
void score(const Kernels& set, const ScoreTask& task, int64_t chunk);

}  // namespace attfm
