#include "threads.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace attfm {
namespace {

long process_id() {
#if defined(_WIN32)
  return 0;
#else
  return static_cast<long>(getpid());
#endif
}

// The workers sleep on `generation`; the caller writes the task, raises it, and sleeps on `pending`.
struct Pool {
  std::atomic<uint32_t> generation{0};
  std::atomic<int> pending{0};
  Part part = nullptr;
  void* context = nullptr;
  int parts = 0;
  int workers = 0;
  long owner = process_id();

  void work(int index, uint32_t seen) {
    for (;;) {
      uint32_t now = generation.load(std::memory_order_acquire);
      for (int spin = 0; now == seen && spin < 2000; ++spin) now = generation.load(std::memory_order_acquire);
      if (now == seen) {
        generation.wait(seen, std::memory_order_acquire);
        continue;
      }
      seen = now;
      if (index < parts) part(context, index, parts);
      // Every worker reports, so that no late one reads the next task's fields.
      if (pending.fetch_sub(1, std::memory_order_acq_rel) == 1) pending.notify_one();
    }
  }

  void grow(int wanted) {
    for (; workers < wanted; ++workers) {
      // The thread starts from the generation at its birth: it must not miss the next task.
      std::thread([this, index = workers + 1, seen = generation.load()] { work(index, seen); }).detach();
    }
  }
};

std::mutex turn;
// Never destroyed: workers may still sleep on it while the process ends.
Pool* pool = nullptr;

struct Buffer {
  void* memory = nullptr;
  size_t bytes = 0;
  ~Buffer() { std::free(memory); }
};
thread_local Buffer buffers[8];

}  // namespace

void run_parts(int parts, Part part, void* context) {
  if (parts <= 1) {
    part(context, 0, 1);
    return;
  }
  std::lock_guard<std::mutex> lock(turn);
  if (pool == nullptr || pool->owner != process_id()) pool = new Pool;  // a forked child has no workers
  pool->grow(parts - 1);
  pool->part = part;
  pool->context = context;
  pool->parts = parts;
  pool->pending.store(pool->workers, std::memory_order_release);
  pool->generation.fetch_add(1, std::memory_order_acq_rel);
  pool->generation.notify_all();
  part(context, 0, parts);
  int left = pool->pending.load(std::memory_order_acquire);
  for (int spin = 0; left != 0 && spin < 2000; ++spin) left = pool->pending.load(std::memory_order_acquire);
  while (left != 0) {
    pool->pending.wait(left, std::memory_order_acquire);
    left = pool->pending.load(std::memory_order_acquire);
  }
}

void* allocate(size_t bytes, bool zero) {
  size_t rounded = (bytes + 127) / 64 * 64;
  void* memory = std::aligned_alloc(64, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  if (zero) std::memset(memory, 0, rounded);
  return memory;
}

void release(void* memory) { std::free(memory); }

void* scratch(int slot, size_t bytes) {
  Buffer& buffer = buffers[slot];
  if (buffer.bytes < bytes || buffer.bytes > (size_t(8) << 20)) {
    std::free(buffer.memory);
    buffer.memory = nullptr;
    buffer.bytes = 0;
    buffer.memory = allocate(bytes, true);
    buffer.bytes = bytes;
  }
  return buffer.memory;
}

}  // namespace attfm
