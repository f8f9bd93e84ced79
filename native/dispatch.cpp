// Which instruction set serves: the best that this machine has, unless ATTFM_ISA names a lower one.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace attfm {
namespace {

const Kernels* choose() {
  const Kernels* best = &portable_kernels;
#if defined(ATTFM_X86)
  const char* wanted = std::getenv("ATTFM_ISA");
  if (wanted != nullptr && std::strcmp(wanted, "portable") == 0) return best;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = &avx2_kernels;
  if (wanted != nullptr && std::strcmp(wanted, "avx2") == 0) return best;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    best = &avx512_kernels;
  }
#endif
  return best;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels* chosen = choose();
  return *chosen;
}

}  // namespace attfm
