// Memory of one thread that grows to the most that the thread has asked for.
#pragma once

#include <cstdint>
#include <memory>

namespace crnn {

template <class Element>
class Buffer {
 public:
  // At least `count` elements, whose values are lost when it grows, and at first are nobody's.
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
