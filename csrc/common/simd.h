// The compiler's vectors (GCC and clang): arithmetic written once for one number and for many.
//
// A vector of Real has its operators; what is missing for functions that take a number or a vector alike is
// here. Loads and stores need no alignment.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#ifdef __CUDACC__
#define CRNN_HOST_DEVICE __host__ __device__
#else
#define CRNN_HOST_DEVICE
#endif
#define CRNN_INLINE CRNN_HOST_DEVICE inline __attribute__((always_inline))
// Behind a lambda's parameters: without it the lambda may be compiled apart, for the baseline instruction
// set.
#define CRNN_INLINE_LAMBDA __attribute__((always_inline))

namespace crnn {

template <class Element, int kBytes, bool kIsVector = (kBytes > sizeof(Element))>
struct VectorOf {
  typedef Element type __attribute__((vector_size(kBytes)));
};
template <class Element, int kBytes>
struct VectorOf<Element, kBytes, false> {
  using type = Element;
};
// kBytes of an element type: a vector, or one number.
template <class Element, int kBytes>
using Vector = typename VectorOf<Element, kBytes>::type;

// The size of vectors to use where those of kBytes are too long: half of it, and in the end one number.
template <class Element>
constexpr int narrower_bytes(int bytes) {
  return bytes > 16 ? bytes / 2 : int(sizeof(Element));
}

// The type of a vector's lanes; a number is its own.
template <class Value, class = void>
struct ElementType {
  using type = Value;
};
template <class Value>
struct ElementType<Value, std::enable_if_t<!std::is_scalar_v<Value>>> {
  using type = std::decay_t<decltype(std::declval<Value&>()[0])>;
};
template <class Value>
using ElementOf = typename ElementType<Value>::type;

template <class Value>
constexpr int kLanesOf = sizeof(Value) / sizeof(ElementOf<Value>);

template <class To, class From>
CRNN_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

template <class Value>
CRNN_INLINE Value maximum(Value a, Value b) {
  return a > b ? a : b;
}

template <class Value>
CRNN_INLINE Value minimum(Value a, Value b) {
  return a < b ? a : b;
}

template <class Value>
CRNN_INLINE Value load(const ElementOf<Value>* from) {
  Value value;
  memcpy(&value, from, sizeof(value));
  return value;
}

template <class Value>
CRNN_INLINE void store(ElementOf<Value>* to, Value value) {
  memcpy(to, &value, sizeof(value));
}

// x in every lane. Functions for numbers and vectors use it for all but constants. It goes through memory,
// of which the compiler leaves one instruction: a vector computed with a plain number, GCC puts together lane
// by lane where the function is compiled for a better instruction set than the file.
template <class Value>
CRNN_INLINE Value broadcast(ElementOf<Value> x) {
  ElementOf<Value> lanes[kLanesOf<Value>];
  for (int j = 0; j < kLanesOf<Value>; ++j) lanes[j] = x;
  return load<Value>(lanes);
}

// Lane by lane as static_cast does.
template <class To, class From>
CRNN_INLINE To convert_lanes(From from) {
  if constexpr (std::is_scalar_v<To>) {
    return static_cast<To>(from);
  } else {
    return __builtin_convertvector(from, To);
  }
}

template <class Int, int... kLane>
CRNN_INLINE Int lane_indices(std::integer_sequence<int, kLane...>) {
  return Int{kLane...};
}

// (0, 1, 2, ...)
template <class Int>
CRNN_INLINE Int lane_indices() {
  return lane_indices<Int>(std::make_integer_sequence<int, kLanesOf<Int>>());
}

struct Plus {
  template <class Value>
  static CRNN_INLINE Value of(Value a, Value b) {
    return a + b;
  }
};

struct Maximum {
  template <class Value>
  static CRNN_INLINE Value of(Value a, Value b) {
    return maximum(a, b);
  }
};

struct Minimum {
  template <class Value>
  static CRNN_INLINE Value of(Value a, Value b) {
    return minimum(a, b);
  }
};

// All lanes folded into one by an associative operation, in an order that depends on their number alone.
template <class Operation, class Value>
CRNN_INLINE ElementOf<Value> reduce_lanes(Value value) {
  if constexpr (std::is_scalar_v<Value>) {
    return value;
  } else if constexpr (kLanesOf<Value> == 2) {
    return Operation::of(value[0], value[1]);
  } else if constexpr (kLanesOf<Value> == 4 && sizeof(Value) == 16) {
    return Operation::of(Operation::of(value[0], value[2]), Operation::of(value[1], value[3]));
  } else {
    Vector<ElementOf<Value>, sizeof(Value) / 2> halves[2];
    memcpy(halves, &value, sizeof(value));
    return reduce_lanes<Operation>(Operation::of(halves[0], halves[1]));
  }
}

// The lanes of `a` and then of `b`, those from kFirst on.
template <int kFirst, class Value, int... kLane>
CRNN_INLINE Value extract_lanes(Value a, Value b, std::integer_sequence<int, kLane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (kFirst + kLane)...);
#else
  using Int = decltype(a < b);
  return __builtin_shuffle(a, b, Int{(kFirst + kLane)...});
#endif
}

// (before[last], value[0], value[1], ...): what stood one lane below.
template <class Value>
CRNN_INLINE Value shift_lanes_up(Value value, Value before) {
  return extract_lanes<kLanesOf<Value> - 1>(before, value,
                                            std::make_integer_sequence<int, kLanesOf<Value>>());
}

// (value[1], value[2], ..., after[0]): what stood one lane above.
template <class Value>
CRNN_INLINE Value shift_lanes_down(Value value, Value after) {
  return extract_lanes<1>(value, after, std::make_integer_sequence<int, kLanesOf<Value>>());
}

}  // namespace crnn
