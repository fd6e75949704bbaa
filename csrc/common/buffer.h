// Scratch memory of one thread. It grows to the largest size requested so far.
#pragma once

#include <cstdint>
#include <memory>

namespace crnn {

template <class Element>
class Buffer {
 public:
  // Returns at least `count` elements. They are uninitialized at first, and growing discards their values.
  Element* ensure_capacity(int64_t count) {
    if (count > capacity_) {
      elements_.reset(new Element[count]);
      capacity_ = count;
    }
    return elements_.get();
  }

 private:
  std::unique_ptr<Element[]> elements_;
  int64_t capacity_ = 0;
};

}  // namespace crnn
