// The tables by which the operators walk tries and automata; crnn_ext/text/_tables.py says what they mean.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <vector>

namespace crnn::text {

struct Edge {
  int32_t source, symbol, target;
  float weight;
};

// The edges of all states, those of a state side by side in the order of their symbols.
struct Edges {
  Edges(const std::vector<Edge>& edges, int32_t states);

  std::vector<int32_t> first_edge;                // (states + 1)
  std::vector<int32_t> edge_symbol, edge_target;  // (edges)
  std::vector<float> edge_weight;                 // (edges)
};

struct Automaton {
  Edges edges;
  std::vector<int32_t> fail_state;  // (states)
  std::vector<float> fail_weight;   // (states)
  std::vector<float> final_weight;  // (states)
  int32_t start;

  // In the order of the fields of the Python class.
  pybind11::tuple to_python() const;
};

template <class T>
pybind11::array_t<T> to_array(const std::vector<T>& values) {
  return pybind11::array_t<T>(pybind11::ssize_t(values.size()), values.data());
}

}  // namespace crnn::text
