// Tries over symbols: n-grams over words, words over token classes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace crnn::text {

// Nodes are numbered as they join, so that a node's number is above its parent's. A node stands for the path
// of symbols that leads to it; the root's is empty.
class Trie {
 public:
  static constexpr int32_t kRoot = 0;
  static constexpr int32_t kNone = -1;

  Trie() : parents_{kNone}, symbols_{kNone}, slots_(kFewestSlots, kNone) {}

  // The child of a node for a symbol, or kNone.
  int32_t find(int32_t node, int32_t symbol) const { return slots_[slot_of(node, symbol)]; }

  // The same, after a child that was missing has joined.
  int32_t extend(int32_t node, int32_t symbol);

  int32_t size() const { return int32_t(parents_.size()); }
  int32_t parent(int32_t node) const { return parents_[node]; }
  int32_t symbol(int32_t node) const { return symbols_[node]; }

  // All nodes, those of shorter paths first.
  std::vector<int32_t> by_depth() const;

  // (nodes): the node of the longest proper suffix of each one's path that is a path of the trie; the root's
  // is the root. From Aho and Corasick, "Efficient string matching", 1975.
  std::vector<int32_t> suffixes(const std::vector<int32_t>& by_depth) const;

 private:
  static constexpr size_t kFewestSlots = 16;

  // Where the child is, or where it would be.
  size_t slot_of(int32_t node, int32_t symbol) const;
  void rehash(size_t slots);

  std::vector<int32_t> parents_, symbols_;  // (nodes)
  std::vector<int32_t> slots_;              // hash table with open addresses, a power of two: nodes, or kNone
};

}  // namespace crnn::text
