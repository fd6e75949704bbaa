// Tries over symbols: n-grams over words, or words over token classes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace crnn::text {

// Nodes are numbered in order of insertion, so a node's number exceeds its parent's. A node stands for the
// sequence of symbols on the path from the root.
class Trie {
 public:
  static constexpr int32_t kRoot = 0;
  static constexpr int32_t kNone = -1;

  Trie() : parents_{kNone}, symbols_{kNone}, slots_(kMinSlots, kNone) {}

  // The child of a node for a symbol, or kNone.
  int32_t find(int32_t node, int32_t symbol) const { return slots_[slot_of(node, symbol)]; }

  // The child of a node for a symbol, inserted if missing.
  int32_t extend(int32_t node, int32_t symbol);

  int32_t size() const { return int32_t(parents_.size()); }
  int32_t parent(int32_t node) const { return parents_[node]; }
  int32_t symbol(int32_t node) const { return symbols_[node]; }

  // All nodes, shorter paths first.
  std::vector<int32_t> by_depth() const;

  // (nodes): suffix links: the node of the longest proper suffix of each path that is in the trie; the root's
  // is the root. Aho and Corasick, "Efficient string matching", 1975.
  std::vector<int32_t> suffixes(const std::vector<int32_t>& by_depth) const;

 private:
  static constexpr size_t kMinSlots = 16;

  // The slot of the child, or the one to insert it in.
  size_t slot_of(int32_t node, int32_t symbol) const;
  void rehash(size_t slots);

  std::vector<int32_t> parents_, symbols_;  // (nodes)
  std::vector<int32_t> slots_;  // open-addressing hash table of nodes or kNone; size: a power of two
};

}  // namespace crnn::text
