#include "text/tables.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace py = pybind11;

namespace crnn::text {
namespace {

// Stable counting sort of edges by a member with values below `bound`. first: (bound + 1), the start of each
// value.
template <int32_t Edge::* member>
std::vector<int32_t> counting_sort(const std::vector<Edge>& edges, const std::vector<int32_t>& order,
                                   int32_t bound, std::vector<int32_t>* first) {
  first->assign(size_t(bound) + 1, 0);
  for (const Edge& edge : edges) ++(*first)[edge.*member + 1];
  std::partial_sum(first->begin(), first->end(), first->begin());
  std::vector<int32_t> next(*first);
  std::vector<int32_t> sorted(edges.size());
  for (const int32_t edge : order) sorted[next[edges[edge].*member]++] = edge;
  return sorted;
}

}  // namespace

Edges::Edges(const std::vector<Edge>& edges, int32_t states) {
  if (edges.size() > size_t(std::numeric_limits<int32_t>::max())) {
    throw std::length_error("more than 2^31 - 1 edges");
  }
  int32_t symbols = 0;
  for (const Edge& edge : edges) symbols = std::max(symbols, edge.symbol + 1);
  std::vector<int32_t> order(edges.size());
  std::iota(order.begin(), order.end(), 0);
  order = counting_sort<&Edge::symbol>(edges, order, symbols, &first_edge);
  order = counting_sort<&Edge::source>(edges, order, states, &first_edge);
  for (const int32_t edge : order) {
    edge_symbol.push_back(edges[edge].symbol);
    edge_target.push_back(edges[edge].target);
    edge_weight.push_back(edges[edge].weight);
  }
}

py::tuple Automaton::to_python() const {
  return py::make_tuple(to_array(edges.first_edge), to_array(edges.edge_symbol), to_array(edges.edge_target),
                        to_array(edges.edge_weight), to_array(fail_state), to_array(fail_weight),
                        to_array(final_weight), start);
}

}  // namespace crnn::text
