// Helpers that the LibTorch stable ABI does not provide.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "common/half.h"
#include "common/views.h"

namespace crnn {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool is_index_type(ScalarType type) {
  return type == ScalarType::Int || type == ScalarType::Long;
}

// A new uninitialized tensor on the device of `like`.
inline Tensor new_tensor(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType type) {
  return torch::stable::new_empty(like, {sizes.begin(), sizes.size()}, type);
}

template <class Element>
Element* data(const Tensor& tensor) {
  return static_cast<Element*>(tensor.mutable_data_ptr());
}

// Memory for `count` elements on the device of `like`.
template <class Element>
Tensor scratch(const Tensor& like, int64_t count) {
  return new_tensor(like, {count * int64_t(sizeof(Element))}, ScalarType::Byte);
}

// Calls body(Storage{}) with the C++ storage type of `type`.
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

// The dtype in which `type` is computed and in which losses and scores are returned.
inline ScalarType compute_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace crnn
