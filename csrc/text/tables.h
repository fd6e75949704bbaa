// Tries and automata as tables for the operators; documented in crnn_ext/text/_tables.py.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <vector>

namespace crnn::text {

struct Edge {
  int32_t source, symbol, target;
  float weight;
};

// The edges of all states in CSR form: grouped by state, sorted by symbol.
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

  // The tables in the order of the fields of the Python class.
  pybind11::tuple to_python() const;
};

template <class T>
pybind11::array_t<T> to_array(const std::vector<T>& values) {
  return pybind11::array_t<T>(pybind11::ssize_t(values.size()), values.data());
}

}  // namespace crnn::text
