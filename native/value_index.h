// Values of a column as they stand in memory, and the feature of each: a cache in front of the encoder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <shared_mutex>
#include <string>
#include <vector>

namespace attfm {

// A hash table from bytes to a number, with open addressing. Many threads may find while none adds.
class ValueIndex {
 public:
  // At most `capacity` values are kept: one more, and all are forgotten first.
  ValueIndex(uint64_t seed, int64_t capacity) : seed_(seed), capacity_(capacity) { clear(); }

  int64_t size() const { return size_; }
  static constexpr int64_t LONGEST = 256;  // bytes of a value that is kept

  // The feature of a value, -1 where it is not here. The caller holds the lock.
  int32_t find(const char* bytes, int64_t size) const {
    uint64_t first, last;
    ends(bytes, size, first, last);
    const uint64_t key = hash(bytes, size, first, last);
    for (size_t at = key & mask_;; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      if (slot.feature < 0) return -1;
      if (slot.hash == key && slot.size == size && slot.first == first && slot.last == last &&
          (size <= 16 || std::memcmp(bytes_.data() + slot.start, bytes + 8, size_t(size - 16)) == 0))
        return slot.feature;
    }
  }

  void add(const char* bytes, int64_t size, int32_t feature);

  mutable std::shared_mutex lock;

 private:
  struct Slot {
    uint64_t hash, first, last;
    int64_t start;  // in bytes_, where what is between its ends stands
    int32_t size, feature;
  };

  static uint64_t load(const char* bytes, size_t size) {
    uint64_t word = 0;
    std::memcpy(&word, bytes, size);
    return word;
  }
  static uint64_t mix(uint64_t h) {
    h *= 0xBF58476D1CE4E5B9ull;
    return h ^ (h >> 29);
  }
  // The first and the last eight bytes, which overlap in a short value; of up to 16 they are all of it, with the size.
  static void ends(const char* bytes, int64_t size, uint64_t& first, uint64_t& last) {
    if (size >= 8) {
      first = load(bytes, 8), last = load(bytes + size - 8, 8);
    } else if (size >= 4) {
      first = load(bytes, 4), last = load(bytes + size - 4, 4);
    } else {
      first = last = 0;
      for (int64_t n = 0; n < size; ++n) first = first << 8 | uint8_t(bytes[n]);
    }
  }
  // Seeded, so that nobody who sends values can choose ones that meet.
  uint64_t hash(const char* bytes, int64_t size, uint64_t first, uint64_t last) const {
    uint64_t h = mix(mix(seed_ ^ uint64_t(size) ^ first) ^ last);
    for (int64_t at = 8; at + 8 < size; at += 8) h = mix(h ^ load(bytes + at, 8));
    h *= 0x94D049BB133111EBull;
    return h ^ (h >> 32);
  }
  void clear();
  void grow();

  uint64_t seed_;
  int64_t capacity_, size_ = 0;
  size_t mask_ = 0;
  std::vector<Slot> slots_;
  std::vector<char> bytes_;
};

}  // namespace attfm
