#include "value_index.h"

#include <mutex>
#include <utility>

namespace attfm {

void ValueIndex::clear() {
  size_ = 0;
  mask_ = 63;
  slots_.assign(mask_ + 1, Slot{0, 0, 0, 0, 0, -1});
  bytes_.clear();
}

void ValueIndex::grow() {
  std::vector<Slot> old(2 * slots_.size(), Slot{0, 0, 0, 0, 0, -1});
  std::swap(old, slots_);
  mask_ = slots_.size() - 1;
  for (const Slot& slot : old) {
    if (slot.feature < 0) continue;
    size_t at = slot.hash & mask_;
    while (slots_[at].feature >= 0) at = (at + 1) & mask_;
    slots_[at] = slot;
  }
}

void ValueIndex::add(const char* bytes, int64_t size, int32_t feature) {
  if (size > LONGEST || feature < 0) return;
  std::unique_lock<std::shared_mutex> writing(lock);
  if (find(bytes, size) >= 0) return;
  if (size_ >= capacity_) clear();
  if (size_t(2 * size_ + 2) > slots_.size()) grow();
  uint64_t first, last;
  ends(bytes, size, first, last);
  const uint64_t key = hash(bytes, size, first, last);
  size_t at = key & mask_;
  while (slots_[at].feature >= 0) at = (at + 1) & mask_;
  slots_[at] = Slot{key, first, last, int64_t(bytes_.size()), int32_t(size), feature};
  if (size > 16) bytes_.insert(bytes_.end(), bytes + 8, bytes + size - 8);
  ++size_;
}

}  // namespace attfm
