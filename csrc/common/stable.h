// What the LibTorch stable ABI does not offer directly, in one place.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "common/half.h"

namespace crnn {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool is_index_type(ScalarType type) {
  return type == ScalarType::Int || type == ScalarType::Long;
}

// A new tensor on the device of `like`.
inline Tensor new_tensor(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType type) {
  return torch::stable::new_empty(like, {sizes.begin(), sizes.size()}, type);
}

// The elements of an int32 or int64 tensor of one or two dimensions, whatever its strides.
class IndexView {
 public:
  explicit IndexView(const Tensor& tensor)
      : data_(tensor.const_data_ptr()),
        wide_(tensor.scalar_type() == ScalarType::Long),
        stride0_(tensor.dim() > 0 ? tensor.stride(0) : 0),
        stride1_(tensor.dim() > 1 ? tensor.stride(1) : 0) {}

  int64_t operator()(int64_t i, int64_t j = 0) const {
    const int64_t at = i * stride0_ + j * stride1_;
    return wide_ ? static_cast<const int64_t*>(data_)[at] : static_cast<const int32_t*>(data_)[at];
  }

 private:
  const void* data_;
  bool wide_;
  int64_t stride0_, stride1_;
};

// The rows of a (T, N, C) tensor, whatever its strides.
template <class Storage>
struct Rows {
  Storage* data;
  int64_t stride_t, stride_n, stride_c;

  Rows(const void* pointer, const Tensor& tensor)
      : data(static_cast<Storage*>(const_cast<void*>(pointer))),
        stride_t(tensor.stride(0)),
        stride_n(tensor.stride(1)),
        stride_c(tensor.stride(2)) {}

  CRNN_INLINE Storage* row(int64_t t, int64_t n) const { return data + t * stride_t + n * stride_n; }
};

// Calls body(Storage{}) with the C++ type that `type` stores its elements in.
template <class Body>
void dispatch_floating(ScalarType type, const char* op, const Body& body) {
  switch (type) {
    case ScalarType::Float:
      return body(float{});
    case ScalarType::Double:
      return body(double{});
    case ScalarType::Half:
      return body(Half{});
    case ScalarType::BFloat16:
      return body(BFloat16{});
    default:
      throw std::runtime_error(std::string(op) + ": logits must be float16, bfloat16, float32 or float64");
  }
}

// The type in which `type` is computed, and in which losses and scores come back.
inline ScalarType compute_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace crnn
