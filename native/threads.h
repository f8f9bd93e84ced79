// A small pool of threads and scratch memory; nothing here depends on the instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace attfm {

using Part = void (*)(void* context, int part, int parts);

// Call part(context, i, parts) for every i in [0, parts), each on its own thread, and wait for all.
// Part 0 runs on the caller. Calls from several threads take turns. Works again in a forked child.
void run_parts(int parts, Part part, void* context);

// Memory of the calling thread, 64-byte aligned, kept between calls up to a few MB; never null.
// Each slot (0 to 7) is one buffer; asking for a slot again may move it and loses its content.
void* scratch(int slot, size_t bytes);

// 64-byte aligned memory that the caller frees with `release`; zeroed when asked.
void* allocate(size_t bytes, bool zero);
void release(void* memory);

}  // namespace attfm
