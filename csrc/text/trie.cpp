#include "text/trie.h"

#include <limits>
#include <numeric>
#include <stdexcept>

namespace crnn::text {

int32_t Trie::extend(int32_t node, int32_t symbol) {
  size_t slot = slot_of(node, symbol);
  if (slots_[slot] != kNone) return slots_[slot];
  if (size() == std::numeric_limits<int32_t>::max()) throw std::length_error("more than 2^31 - 2 nodes");
  if (size_t(size()) * 2 >= slots_.size()) {
    rehash(slots_.size() * 2);
    slot = slot_of(node, symbol);
  }
  slots_[slot] = size();
  parents_.push_back(node);
  symbols_.push_back(symbol);
  return slots_[slot];
}

size_t Trie::slot_of(int32_t node, int32_t symbol) const {
  // The finalizer of SplitMix64.
  uint64_t hash = uint64_t(uint32_t(node)) << 32 | uint32_t(symbol);
  hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9;
  hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EB;
  hash ^= hash >> 31;
  const size_t mask = slots_.size() - 1;
  for (size_t slot = hash & mask;; slot = (slot + 1) & mask) {
    const int32_t child = slots_[slot];
    if (child == kNone || (parents_[child] == node && symbols_[child] == symbol)) return slot;
  }
}

void Trie::rehash(size_t slots) {
  slots_.assign(slots, kNone);
  for (int32_t node = kRoot + 1; node < size(); ++node)
    slots_[slot_of(parents_[node], symbols_[node])] = node;
}

std::vector<int32_t> Trie::by_depth() const {
  std::vector<int32_t> depth(size(), 0);
  std::vector<int32_t> first{0, 1};  // of each depth
  for (int32_t node = kRoot + 1; node < size(); ++node) {
    depth[node] = depth[parents_[node]] + 1;
    if (size_t(depth[node]) + 1 == first.size()) first.push_back(0);
    ++first[depth[node] + 1];
  }
  std::partial_sum(first.begin(), first.end(), first.begin());
  std::vector<int32_t> nodes(size());
  for (int32_t node = kRoot; node < size(); ++node) nodes[first[depth[node]]++] = node;
  return nodes;
}

std::vector<int32_t> Trie::suffixes(const std::vector<int32_t>& by_depth) const {
  std::vector<int32_t> suffix(size(), kRoot);
  for (const int32_t node : by_depth) {
    if (node == kRoot || parents_[node] == kRoot) continue;
    int32_t shorter = parents_[node];
    int32_t found = kNone;
    while (found == kNone && shorter != kRoot) {
      shorter = suffix[shorter];
      found = find(shorter, symbols_[node]);
    }
    if (found != kNone) suffix[node] = found;
  }
  return suffix;
}

}  // namespace crnn::text
