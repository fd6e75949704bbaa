// Prefix beam search on a GPU: a sample a block, which reads all frames in one launch.
//
// The beam is kept by rank: thread i has the prefixes of rank i, i + blockDim.x, ... A frame
//   1. adds its emissions to all prefixes: those are the first candidates;
//   2. derives from them what an extension has to exceed, since a full beam drops nothing better than its
//      worst prefix;
//   3. offers the extensions that may exceed it, prefixes times tokens, as many at a time as there are
//      threads;
//   4. sorts the candidates, of which the best are the next beam;
//   5. writes these prefixes, into the other one of two buffers;
//   6. finds which of them are extended by a label in others: those will get more of their paths.
// Prefixes lie in global memory (their block alone reads them, from its first-level cache); candidates, and
// what all threads look through, in shared memory.
#pragma once

#include "beam_search/block_top_k.cuh"
#include "beam_search/fusion.h"
#include "beam_search/hypotheses.cuh"
#include "beam_search/options.h"
#include "beam_search/token_selection.cuh"
#include "common/emission.h"

namespace crnn::beam_search {

// The threads of a block for a beam: several prefixes a thread when it is large.
constexpr int kMaxSearchThreads = 256;
constexpr int search_threads(int64_t beam) {
  return beam <= 64 ? 128 : kMaxSearchThreads;
}

// What may be in the next beam.
struct Candidate {
  double score;    // bits
  int64_t number;  // see CandidateIds; as wide as the score, so that no byte is padding

  friend CRNN_INLINE bool operator<(const Candidate& a, const Candidate& b) {
    return a.score > b.score || (a.score == b.score && a.number < b.number);
  }
};

// Candidates are numbered in the order of ties: prefixes of the beam by rank, then extensions by rank and
// token.
struct CandidateIds {
  int32_t beam, classes;

  CRNN_INLINE int32_t extension(int32_t rank, int32_t token) const { return beam + rank * classes + token; }
  CRNN_INLINE bool is_extension(int32_t number) const { return number >= beam; }
  CRNN_INLINE int32_t rank(int32_t number) const { return (number - beam) / classes; }
  CRNN_INLINE int32_t token(int32_t number) const { return (number - beam) % classes; }
};

// Memory for all samples.
template <class Real, class State>
struct Scratch {
  BeamEntry<State>* entries;               // (N, 2, beam)
  PrefixProbability<Real>* probabilities;  // (N, 2, beam)
  PrefixProbability<Real>* updated;        // (N, beam): of the prefixes of the beam, a frame updated
  Node* nodes;      // (N, T * beam): node number 1 + t * beam + r entered at frame t with rank r
  int32_t* tokens;  // (N, C): those that may extend at this frame, where none are listed
};

template <class Storage, class Real, class Fusion>
struct SearchParams {
  TncView<const Storage> logits;  // (T, N, C)
  IndexView length_of;            // (N,)
  int64_t frames;                 // T
  int32_t classes;                // C
  Options options;
  Fusion fusion;
  FrameShortlists<Real> rows;
  Scratch<Real, typename Fusion::State> scratch;
  Hypotheses<Real> hypotheses;
};

// What the threads of a block look through.
struct Shared {
  Candidate* candidates;    // (BlockTopK::capacity(beam, threads))
  PrefixHash* hash;         // (beam)
  int64_t* extension_keys;  // (beam): which prefix it is of the beam, and by which token that was extended

  static constexpr size_t bytes(int64_t beam) {
    return BlockTopK<Candidate>::capacity(beam, search_threads(beam)) * sizeof(Candidate) +
           beam * (sizeof(PrefixHash) + sizeof(int64_t));
  }
  __device__ Shared(Candidate* memory, int64_t beam) : candidates(memory) {
    hash = reinterpret_cast<PrefixHash*>(candidates + BlockTopK<Candidate>::capacity(beam, blockDim.x));
    extension_keys = reinterpret_cast<int64_t*>(hash + beam);
  }
};

CRNN_INLINE int64_t extension_key(int32_t parent, int32_t token) {
  return int64_t(parent) * (int64_t(1) << 32) + token;
}

template <class Storage, class Real, class Fusion>
class BlockSearch {
  using State = typename Fusion::State;
  using Candidates = BlockTopK<Candidate>;

 public:
  // count, number: ints in shared memory. As all functions here, for every thread of the block.
  __device__ BlockSearch(const SearchParams<Storage, Real, Fusion>& params, const Shared& shared, int* count,
                         int* number, int64_t n)
      : params_(params), options_(params.options), shared_(shared), count_(count), number_(number), n_(n) {
    const int64_t beam = options_.beam_size;
    ids_ = {int32_t(beam), params.classes};
    entries_ = params.scratch.entries + n * 2 * beam;
    probabilities_ = params.scratch.probabilities + n * 2 * beam;
    next_entries_ = entries_ + beam;
    next_probabilities_ = probabilities_ + beam;
    updated_ = params.scratch.updated + n * beam;
    nodes_ = params.scratch.nodes + n * params.frames * beam;
    held_ = 1;
    if (threadIdx.x == 0) {
      entries_[0] = empty_prefix(options_.blank, params.fusion.start(n));
      probabilities_[0] = {Extended<Real>::one(), Extended<Real>::zero(), Extended<Real>::one()};
      shared_.extension_keys[0] = extension_key(kNone, 0);
    }
    __syncthreads();
  }

  __device__ void process_frame(int64_t t) {
    const int64_t at = n_ * params_.frames + t;
    row_ = params_.logits.row(t, n_);
    shortlist_ = params_.rows.tokens + at * params_.rows.shortlist_size;
    row_max_ = params_.rows.row_max[at];
    inverse_sum_ = params_.rows.inverse_sum[at];

    advance();
    Candidates candidates(shared_.candidates, count_, held_, int(options_.beam_size), no_candidate());
    find_bounds();
    candidates.set_threshold(threshold_);
    push_extensions(&candidates);
    const int sorted = candidates.compact();
    held_ = count_survivors(sorted);
    write_prefixes(t);
    find_parents();
    swap(&entries_, &next_entries_);
    swap(&probabilities_, &next_probabilities_);
  }

  // The n-best at the end of the text.
  __device__ void finish() {
    for (int i = threadIdx.x; i < held_; i += blockDim.x) {
      const BeamEntry<State>& entry = entries_[i];
      const double added = entry.added + params_.fusion.end(entry.state, n_);
      shared_.candidates[i] = {log2_of(probabilities_[i].total) + added * kLog2E, i};
    }
    Candidates candidates(shared_.candidates, count_, held_, int(options_.beam_size), no_candidate());
    const int sorted = candidates.compact();
    write_all([&](int k) {
      const Candidate best = k < sorted ? shared_.candidates[k] : no_candidate();
      if (!(best.score > kNoScore)) return Hypothesis<Real>::missing(kMinusInfinity<Real>);
      const BeamEntry<State>& entry = entries_[best.number];
      const double log2 = log2_of(probabilities_[best.number].total);
      return Hypothesis<Real>{entry.length, entry.node, Real(best.score * kLn2), Real(log2 * kLn2)};
    });
  }

  // Instead of finish(), for a sample that cannot be read.
  __device__ void write_missing() {
    write_all([](int) { return Hypothesis<Real>::missing(std::numeric_limits<Real>::quiet_NaN()); });
  }

 private:
  static constexpr double kNoScore = -std::numeric_limits<double>::infinity();

  static __device__ Candidate no_candidate() { return {kNoScore, INT32_MAX}; }

  template <class Pointer>
  static __device__ void swap(Pointer* a, Pointer* b) {
    const Pointer before = *a;
    *a = *b;
    *b = before;
  }

  static __device__ double log2_of(Extended<Real> x) {
    return double(x.exponent) + double(gpu::log2(x.mantissa));
  }

  static __device__ double score_of(Extended<Real> mass, double added) {
    return Fusion::kHasFusion ? log2_of(mass) + added * kLog2E : approx_log2(mass);
  }

  __device__ Extended<Real> emission_of(Real logit) const {
    return normalized(emission(logit, row_max_, inverse_sum_));
  }
  __device__ Real logit_of(int token) const { return gpu::to_compute(row_[token * params_.logits.stride_c]); }

  __device__ Extended<Real> extendable(int rank, int32_t token) const {
    return extendable_by(token, entries_[rank].last, probabilities_[rank].blank, probabilities_[rank].total);
  }

  // 1. The prefixes of the beam, a frame updated.
  __device__ void advance() {
    const Extended<Real> of_blank = emission_of(logit_of(int(options_.blank)));
    for (int i = threadIdx.x; i < held_; i += blockDim.x) {
      const BeamEntry<State>& entry = entries_[i];
      const Extended<Real> incoming =
          entry.parent == kNone ? Extended<Real>::zero() : extendable(entry.parent, entry.last);
      const PrefixProbability<Real> mass =
          advance_prefix(probabilities_[i].total, probabilities_[i].label, incoming, of_blank,
                         emission_of(logit_of(entry.last)));
      updated_[i] = mass;
      shared_.candidates[i] = {is_zero(mass.total) ? kNoScore : score_of(mass.total, entry.added), i};
    }
  }

  // 2. What the extensions have to exceed, in the order of candidates, and what their scores must not be
  // below.
  __device__ void find_bounds() {
    struct Ends {
      Candidate best, worst;
    };
    const auto joined = [](const Ends& a, const Ends& b) {
      return Ends{a.best < b.best ? a.best : b.best, a.worst < b.worst ? b.worst : a.worst};
    };
    Ends ends{no_candidate(), {std::numeric_limits<double>::infinity(), -1}};
    for (int i = threadIdx.x; i < held_; i += blockDim.x)
      ends = joined(ends, {shared_.candidates[i], shared_.candidates[i]});
    ends = gpu::block_reduce(ends, joined);
    threshold_ = held_ == options_.beam_size ? ends.worst : no_candidate();
    floor_ = score_floor<Fusion::kHasFusion>(ends.best.score, options_);
  }

  // 3.
  __device__ void push_extensions(Candidates* candidates) {
    if (held_ == 0) return;
    const double gain = params_.fusion.largest_step() * kLog2E + 2 * kApproxLog2Error;
    const double best = score_of(probabilities_[0].total, entries_[0].added) + gain;
    least_ = min_token_logit(maximum(threshold_.score, floor_) - best, row_max_, inverse_sum_, options_);
    const bool ranked = params_.rows.shortlist_size > 0;
    const int count = ranked ? params_.rows.shortlist_size : collect_tokens();
    for (int first = 0; first < count;) {
      if (ranked && !may_extend(shortlist_[first])) return;  // nor do those behind it
      // In a round each thread has one prefix and one token.
      const int prefixes =
          Fusion::kHasFusion || first == 0 ? held_ : minimum(held_, int(options_.beam_size) / first);
      if (prefixes == 0) return;
      int width = 1;
      while (width < prefixes && width < int(blockDim.x)) width *= 2;
      for (int first_rank = 0; first_rank < prefixes; first_rank += width) {
        const int at = first + int(threadIdx.x) / width, rank = first_rank + int(threadIdx.x) % width;
        Candidate candidate = no_candidate();
        if (at < count && rank < prefixes &&
            (Fusion::kHasFusion || can_enter_beam(rank, at, options_.beam_size)))
          candidate = extension(rank, ranked ? shortlist_[at] : collected_token(at), gain);
        candidates->push(candidate.score > kNoScore && candidate.score >= floor_, candidate);
      }
      first += int(blockDim.x) / width;
    }
  }

  __device__ bool may_extend(const Token<Real>& token) const {
    return token.logit > kMinusInfinity<Real> && token.logit >= least_;
  }

  __device__ Token<Real> collected_token(int i) const {
    const int32_t token = params_.scratch.tokens[n_ * params_.classes + i];
    return {logit_of(token), token};
  }

  // Lists the tokens that may extend prefixes, in any order, and returns how many there are.
  __device__ int collect_tokens() {
    int32_t* tokens = params_.scratch.tokens + n_ * params_.classes;
    if (threadIdx.x == 0) *number_ = 0;
    __syncthreads();
    for (int c = threadIdx.x; c < params_.classes; c += blockDim.x)
      if (c != options_.blank && may_extend({logit_of(c), c})) tokens[atomicAdd(number_, 1)] = c;
    __syncthreads();
    const int count = *number_;
    __syncthreads();  // before it is used again
    return count;
  }

  // No candidate if it cannot enter the beam.
  __device__ Candidate extension(int rank, const Token<Real>& token, double gain) const {
    if (!may_extend(token)) return no_candidate();
    const Extended<Real> of_token = emission_of(token.logit);
    const BeamEntry<State>& entry = entries_[rank];
    const double most = score_of(probabilities_[rank].total, entry.added) + score_of(of_token, 0) + gain;
    if (most <= threshold_.score || most < floor_ || is_in_beam(extension_key(rank, token.token)))
      return no_candidate();
    const Extended<Real> mass = normalized(extendable(rank, token.token) * of_token);
    if (is_zero(mass)) return no_candidate();
    State state = entry.state;
    const double added = entry.added + params_.fusion.step(&state, token.token, n_);
    return {score_of(mass, added), ids_.extension(rank, token.token)};
  }

  __device__ bool is_in_beam(int64_t label) const {
    bool found = false;
    for (int i = 0; i < held_; ++i) found |= shared_.extension_keys[i] == label;
    return found;
  }

  // 4. How many of the sorted candidates are in the next beam.
  __device__ int count_survivors(int sorted) {
    const double floor =
        sorted == 0 ? 0 : score_floor<Fusion::kHasFusion>(shared_.candidates[0].score, options_);
    const auto lives = [&](int i) {
      return shared_.candidates[i].score > kNoScore && shared_.candidates[i].score >= floor;
    };
    if (threadIdx.x == 0) *number_ = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < sorted; i += blockDim.x)
      if (lives(i) && (i + 1 == sorted || !lives(i + 1))) *number_ = i + 1;
    __syncthreads();
    return *number_;
  }

  // 5.
  __device__ void write_prefixes(int64_t t) {
    for (int i = threadIdx.x; i < held_; i += blockDim.x) {
      const auto number = int32_t(shared_.candidates[i].number);
      if (ids_.is_extension(number)) {
        const int rank = ids_.rank(number);
        const int32_t token = ids_.token(number), node = int32_t(t * options_.beam_size + i) + 1;
        const BeamEntry<State>& parent = entries_[rank];
        const Extended<Real> mass = normalized(extendable(rank, token) * emission_of(logit_of(token)));
        State state = parent.state;
        const double added = parent.added + params_.fusion.step(&state, token, n_);
        nodes_[node - 1] = {parent.node, token};
        next_entries_[i] = parent.extended(kNone, token, node, state, added);
        next_probabilities_[i] = {Extended<Real>::zero(), mass, mass};
      } else {
        next_entries_[i] = entries_[number];
        next_probabilities_[i] = updated_[number];
      }
      shared_.hash[i] = next_entries_[i].hash;
    }
    __syncthreads();
  }

  // 6.
  __device__ void find_parents() {
    for (int i = threadIdx.x; i < held_; i += blockDim.x) {
      BeamEntry<State>& entry = next_entries_[i];
      entry.parent = kNone;
      for (int other = 0; entry.length > 0 && other < held_; ++other)
        if (shared_.hash[other] == entry.parent_hash) entry.parent = other;
      shared_.extension_keys[i] = extension_key(entry.parent, entry.last);
    }
    __syncthreads();
  }

  template <class HypothesisOf>
  __device__ void write_all(const HypothesisOf& hypothesis_of) const {
    write_hypotheses(params_.hypotheses, n_, options_.nbest, params_.frames, nodes_, hypothesis_of);
  }

  const SearchParams<Storage, Real, Fusion>& params_;
  const Options& options_;
  const Shared shared_;
  int* const count_;
  int* const number_;
  const int64_t n_;
  CandidateIds ids_;
  // By rank: the beam, the next one, and the prefixes of the beam a frame updated.
  BeamEntry<State>*entries_, *next_entries_;
  PrefixProbability<Real>*probabilities_, *next_probabilities_, *updated_;
  Node* nodes_;
  int held_;  // prefixes in the beam
  // The frame.
  const Storage* row_;
  const Token<Real>* shortlist_;
  Real row_max_, inverse_sum_, least_;
  Candidate threshold_;
  double floor_;
};

template <class Storage, class Real, class Fusion>
__global__ void __launch_bounds__(kMaxSearchThreads)
    search_kernel(const __grid_constant__ SearchParams<Storage, Real, Fusion> params) {
  GPU_DYNAMIC_SHARED(Candidate, memory);  // (Shared::bytes)
  GPU_SHARED(count, int);
  GPU_SHARED(number, int);
  const int64_t n = blockIdx.x, length = params.length_of(n);
  bool usable = is_valid_length(length, params.frames);
  BlockSearch<Storage, Real, Fusion> search(params, Shared(memory, params.options.beam_size), &count, &number,
                                            n);
  for (int64_t t = 0; usable && t < length; ++t) {
    const Real inverse_sum = params.rows.inverse_sum[n * params.frames + t];
    usable = inverse_sum == inverse_sum;  // not NaN
    if (usable) search.process_frame(t);
  }
  if (usable) {
    search.finish();
  } else {
    search.write_missing();
  }
}

}  // namespace crnn::beam_search
