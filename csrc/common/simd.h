// The vector types of GCC and clang, and functions that accept scalars and vectors alike.
//
// Vectors have the usual operators; this file adds what is missing. Loads and stores need no alignment.
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
// Put this after a lambda's parameters. Otherwise the lambda may be compiled separately, for the baseline
// instruction set.
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
// kBytes of an element type: a vector, or a scalar if that is one element.
template <class Element, int kBytes>
using Vector = typename VectorOf<Element, kBytes>::type;

// The next smaller vector size: half, and finally one element.
template <class Element>
constexpr int narrower_bytes(int bytes) {
  return bytes > 16 ? bytes / 2 : int(sizeof(Element));
}

// The type of a vector's lanes; a scalar is its own element type.
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

// x in every lane. Generic functions must use this for everything but constants. It goes through memory,
// which compiles to one instruction. Mixing a vector with a scalar is slower: if the function is compiled for
// a better instruction set than the file, GCC assembles the scalar's vector lane by lane.
template <class Value>
CRNN_INLINE Value broadcast(ElementOf<Value> x) {
  ElementOf<Value> lanes[kLanesOf<Value>];
  for (int j = 0; j < kLanesOf<Value>; ++j) lanes[j] = x;
  return load<Value>(lanes);
}

// static_cast of each lane.
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

// Reduces all lanes with an associative operation, in an order that depends on the number of lanes alone.
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

// The lanes of (a, b) concatenated, starting at kFirst.
template <int kFirst, class Value, int... kLane>
CRNN_INLINE Value extract_lanes(Value a, Value b, std::integer_sequence<int, kLane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (kFirst + kLane)...);
#else
  using Int = decltype(a < b);
  return __builtin_shuffle(a, b, Int{(kFirst + kLane)...});
#endif
}

// (before[last], value[0], value[1], ...)
template <class Value>
CRNN_INLINE Value shift_lanes_up(Value value, Value before) {
  return extract_lanes<kLanesOf<Value> - 1>(before, value,
                                            std::make_integer_sequence<int, kLanesOf<Value>>());
}

// (value[1], value[2], ..., after[0])
template <class Value>
CRNN_INLINE Value shift_lanes_down(Value value, Value after) {
  return extract_lanes<1>(value, after, std::make_integer_sequence<int, kLanesOf<Value>>());
}

}  // namespace crnn
