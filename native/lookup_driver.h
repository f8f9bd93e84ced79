// A part of the driver of make sanitize.
#pragma once

#include <array>
#include <vector>

#include "kernels.h"

struct Failures {
  int runs, failures;
};

// Scores by lookup on awkward shapes by each instruction set.
Failures check_lookup(const std::vector<const attfm::Kernels*>& sets);
