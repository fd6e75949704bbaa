// The set of ready threads of a block.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace cuda_on_host {

constexpr int kWarpSize = 32;
constexpr int kMaxThreads = 1024;  // per block

// A set of thread numbers below kMaxThreads.
class ThreadSet {
 public:
  void add(int number) { words_[number / 64] |= uint64_t(1) << number % 64; }
  void remove(int number) { words_[number / 64] &= ~(uint64_t(1) << number % 64); }
  void clear() { words_.fill(0); }

  // The first member from `start` upwards, cyclically; -1 if the set is empty.
  int next_from(int start) const {
    int word = start / 64;
    uint64_t candidates = words_[word] & (~uint64_t(0) << start % 64);
    for (int i = 0; candidates == 0 && i < kWords; ++i) {
      word = (word + 1) % kWords;
      candidates = words_[word];
    }
    return candidates == 0 ? -1 : word * 64 + std::countr_zero(candidates);
  }

  // The first member from `start` downwards, cyclically; -1 if the set is empty.
  int previous_from(int start) const {
    int word = start / 64;
    uint64_t candidates = words_[word] & (~uint64_t(0) >> (63 - start % 64));
    for (int i = 0; candidates == 0 && i < kWords; ++i) {
      word = (word + kWords - 1) % kWords;
      candidates = words_[word];
    }
    return candidates == 0 ? -1 : word * 64 + 63 - std::countl_zero(candidates);
  }

 private:
  static constexpr int kWords = kMaxThreads / 64;
  std::array<uint64_t, kWords> words_{};
};

}  // namespace cuda_on_host
