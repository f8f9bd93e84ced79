// The part of the sanitizers' driver that is about ranking.
#pragma once

#include <vector>

#include "kernels.h"

// Runs the ranking kernels of each set, counts the runs, and returns how many differ from the formula.
int ranking_differences(const std::vector<const attfm::Kernels*>& sets, int& runs);
