// Tensors as loops and kernels see them: a pointer and strides, for host and device.
//
// The constructors accept any tensor class with torch's interface, so this file needs no torch header.
#pragma once

#include "common/simd.h"

namespace crnn {

// An int32 or int64 tensor of one or two dimensions with any strides.
class IndexView {
 public:
  template <class Tensor>
  explicit IndexView(const Tensor& tensor)
      : data_(tensor.const_data_ptr()),
        wide_(tensor.element_size() == sizeof(int64_t)),
        stride0_(tensor.dim() > 0 ? tensor.stride(0) : 0),
        stride1_(tensor.dim() > 1 ? tensor.stride(1) : 0) {}

  CRNN_INLINE int64_t operator()(int64_t i, int64_t j = 0) const {
    const int64_t at = i * stride0_ + j * stride1_;
    return wide_ ? static_cast<const int64_t*>(data_)[at] : static_cast<const int32_t*>(data_)[at];
  }

  // The view that starts at element (or row) `first`.
  IndexView from(int64_t first) const {
    IndexView rest = *this;
    const int64_t bytes = first * stride0_ * int64_t(wide_ ? sizeof(int64_t) : sizeof(int32_t));
    rest.data_ = static_cast<const char*>(data_) + bytes;
    return rest;
  }

 private:
  const void* data_;
  bool wide_;
  int64_t stride0_, stride1_;
};

// A (T, N, C) tensor with any strides.
template <class Storage>
struct TncView {
  Storage* data;
  int64_t stride_t, stride_n, stride_c;

  template <class Tensor>
  TncView(const void* pointer, const Tensor& tensor)
      : data(static_cast<Storage*>(const_cast<void*>(pointer))),
        stride_t(tensor.stride(0)),
        stride_n(tensor.stride(1)),
        stride_c(tensor.stride(2)) {}

  CRNN_INLINE Storage* row(int64_t t, int64_t n) const { return data + t * stride_t + n * stride_n; }

  // The view that starts at sample n.
  TncView from_sample(int64_t n) const {
    TncView rest = *this;
    rest.data += n * stride_n;
    return rest;
  }
};

}  // namespace crnn
