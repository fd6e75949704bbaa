// Prefix beam search on a GPU: one block per sample processes all frames in one launch.
//
// The beam is sorted by rank; thread i owns the prefixes of rank i, i + blockDim.x, ... Each frame
//   1. updates the probabilities of all prefixes, which become the first candidates;
//   2. derives the score that an extension must exceed: a full beam drops no prefix better than its worst
//   one;
//   3. pushes the extensions that may exceed it (prefixes x tokens), one per thread at a time;
//   4. sorts the candidates; the best ones form the next beam;
//   5. writes these prefixes to the other one of two buffers;
//   6. finds the parent of each prefix in the beam, whose paths the next frame extends by the prefix's last
//   label.
// Prefixes are in global memory (only their own block reads them, through its L1 cache). Candidates and the
// arrays that all threads scan are in shared memory.
#pragma once

#include "beam_search/block_top_k.cuh"
#include "beam_search/fusion.h"
#include "beam_search/hypotheses.cuh"
#include "beam_search/options.h"
#include "beam_search/token_selection.cuh"
#include "common/emission.h"

namespace crnn::beam_search {

// Threads per block; a large beam has several prefixes per thread.
constexpr int kMaxSearchThreads = 256;
constexpr int search_threads(int64_t beam) {
  return beam <= 64 ? 128 : kMaxSearchThreads;
}

// A prefix or an extension that may enter the next beam.
struct Candidate {
  double score;  // bits
  int64_t id;    // see CandidateIds; as wide as the score, so there are no padding bytes

  friend CRNN_INLINE bool operator<(const Candidate& a, const Candidate& b) {
    return a.score > b.score || (a.score == b.score && a.id < b.id);
  }
};

// Candidate ids, in tie-breaking order: prefixes of the beam by rank, then extensions by rank and token.
struct CandidateIds {
  int32_t beam, classes;

  CRNN_INLINE int32_t extension(int32_t rank, int32_t token) const { return beam + rank * classes + token; }
  CRNN_INLINE bool is_extension(int32_t id) const { return id >= beam; }
  CRNN_INLINE int32_t rank(int32_t id) const { return (id - beam) / classes; }
  CRNN_INLINE int32_t token(int32_t id) const { return (id - beam) % classes; }
};

// Global memory for all samples.
template <class Real, class State>
struct Scratch {
  BeamEntry<State>* entries;               // (N, 2, beam)
  PrefixProbability<Real>* probabilities;  // (N, 2, beam)
  PrefixProbability<Real>* updated;        // (N, beam): of the current prefixes, after the frame
  Node* nodes;      // (N, T * beam): node 1 + t * beam + r entered at frame t with rank r
  int32_t* tokens;  // (N, C): tokens that may extend prefixes at this frame; unused with a shortlist
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

// Shared memory of a block.
struct SharedMemory {
  Candidate* candidates;    // (BlockTopK::capacity(beam, threads))
  PrefixHash* hash;         // (beam)
  int64_t* extension_keys;  // (beam): extension_key of each prefix

  static constexpr size_t bytes(int64_t beam) {
    return BlockTopK<Candidate>::capacity(beam, search_threads(beam)) * sizeof(Candidate) +
           beam * (sizeof(PrefixHash) + sizeof(int64_t));
  }
  __device__ SharedMemory(Candidate* memory, int64_t beam) : candidates(memory) {
    hash = reinterpret_cast<PrefixHash*>(candidates + BlockTopK<Candidate>::capacity(beam, blockDim.x));
    extension_keys = reinterpret_cast<int64_t*>(hash + beam);
  }
};

// Identifies the extension of a prefix of the beam by a token.
CRNN_INLINE int64_t extension_key(int32_t parent, int32_t token) {
  return int64_t(parent) * (int64_t(1) << 32) + token;
}

template <class Storage, class Real, class Fusion>
class BlockSearch {
  using State = typename Fusion::State;
  using Candidates = BlockTopK<Candidate>;

 public:
  // top_k_count, counter: in shared memory. All functions of this class are called by every thread of the
  // block.
  __device__ BlockSearch(const SearchParams<Storage, Real, Fusion>& params, const SharedMemory& shared,
                         int* top_k_count, int* counter, int64_t n)
      : params_(params),
        options_(params.options),
        shared_(shared),
        top_k_count_(top_k_count),
        counter_(counter),
        n_(n) {
    const int64_t beam = options_.beam_size;
    ids_ = {int32_t(beam), params.classes};
    entries_ = params.scratch.entries + n * 2 * beam;
    probabilities_ = params.scratch.probabilities + n * 2 * beam;
    next_entries_ = entries_ + beam;
    next_probabilities_ = probabilities_ + beam;
    updated_ = params.scratch.updated + n * beam;
    nodes_ = params.scratch.nodes + n * params.frames * beam;
    prefix_count_ = 1;
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
    Candidates candidates(shared_.candidates, top_k_count_, prefix_count_, int(options_.beam_size),
                          no_candidate());
    find_bounds();
    candidates.set_threshold(threshold_);
    push_extensions(&candidates);
    const int sorted = candidates.compact();
    prefix_count_ = count_survivors(sorted);
    write_prefixes(t);
    find_parents();
    swap(&entries_, &next_entries_);
    swap(&probabilities_, &next_probabilities_);
  }

  // Writes the n-best hypotheses after the last frame.
  __device__ void finish() {
    for (int i = threadIdx.x; i < prefix_count_; i += blockDim.x) {
      const BeamEntry<State>& entry = entries_[i];
      const double fusion_score = entry.fusion_score + params_.fusion.end(entry.state, n_);
      shared_.candidates[i] = {log2_of(probabilities_[i].total) + fusion_score * kLog2E, i};
    }
    Candidates candidates(shared_.candidates, top_k_count_, prefix_count_, int(options_.beam_size),
                          no_candidate());
    const int sorted = candidates.compact();
    write_all([&](int k) {
      const Candidate best = k < sorted ? shared_.candidates[k] : no_candidate();
      if (!(best.score > kNoScore)) return Hypothesis<Real>::missing(kMinusInfinity<Real>);
      const BeamEntry<State>& entry = entries_[best.id];
      const double log2 = log2_of(probabilities_[best.id].total);
      return Hypothesis<Real>{entry.length, entry.node, Real(best.score * kLn2), Real(log2 * kLn2)};
    });
  }

  // Replaces finish() for a sample with an invalid length, NaN or +inf.
  __device__ void write_missing() {
    write_all([](int) { return Hypothesis<Real>::missing(std::numeric_limits<Real>::quiet_NaN()); });
  }

 private:
  static constexpr double kNoScore = -std::numeric_limits<double>::infinity();

  static __device__ Candidate no_candidate() { return {kNoScore, INT32_MAX}; }

  template <class Pointer>
  static __device__ void swap(Pointer* a, Pointer* b) {
    const Pointer old_a = *a;
    *a = *b;
    *b = old_a;
  }

  static __device__ double log2_of(Extended<Real> x) {
    return double(x.exponent) + double(gpu::log2(x.mantissa));
  }

  static __device__ double score_of(Extended<Real> probability, double fusion_score) {
    return Fusion::kHasFusion ? log2_of(probability) + fusion_score * kLog2E : approx_log2(probability);
  }

  __device__ Extended<Real> emission_of(Real logit) const {
    return normalized(emission(logit, row_max_, inverse_sum_));
  }
  __device__ Real logit_of(int token) const { return gpu::to_compute(row_[token * params_.logits.stride_c]); }

  __device__ Extended<Real> extendable(int rank, int32_t token) const {
    return extendable_by(token, entries_[rank].last, probabilities_[rank].blank, probabilities_[rank].total);
  }

  // 1. Updates the probabilities of all prefixes in the beam.
  __device__ void advance() {
    const Extended<Real> blank_emission = emission_of(logit_of(int(options_.blank)));
    for (int i = threadIdx.x; i < prefix_count_; i += blockDim.x) {
      const BeamEntry<State>& entry = entries_[i];
      const Extended<Real> incoming =
          entry.parent == kNone ? Extended<Real>::zero() : extendable(entry.parent, entry.last);
      const PrefixProbability<Real> probability =
          advance_prefix(probabilities_[i].total, probabilities_[i].label, incoming, blank_emission,
                         emission_of(logit_of(entry.last)));
      updated_[i] = probability;
      shared_.candidates[i] = {
          is_zero(probability.total) ? kNoScore : score_of(probability.total, entry.fusion_score), i};
    }
  }

  // 2. Finds the candidate that extensions must precede, and the score that they must reach.
  __device__ void find_bounds() {
    struct Extremes {
      Candidate best, worst;
    };
    const auto combine = [](const Extremes& a, const Extremes& b) {
      return Extremes{a.best < b.best ? a.best : b.best, a.worst < b.worst ? b.worst : a.worst};
    };
    Extremes extremes{no_candidate(), {std::numeric_limits<double>::infinity(), -1}};
    for (int i = threadIdx.x; i < prefix_count_; i += blockDim.x)
      extremes = combine(extremes, {shared_.candidates[i], shared_.candidates[i]});
    extremes = gpu::block_reduce(extremes, combine);
    threshold_ = prefix_count_ == options_.beam_size ? extremes.worst : no_candidate();
    floor_ = score_floor<Fusion::kHasFusion>(extremes.best.score, options_);
  }

  // 3. Pushes the extensions that may enter the beam.
  __device__ void push_extensions(Candidates* candidates) {
    if (prefix_count_ == 0) return;
    const double max_gain = params_.fusion.largest_step() * kLog2E + 2 * kApproxLog2Error;
    const double best = score_of(probabilities_[0].total, entries_[0].fusion_score) + max_gain;
    min_logit_ = min_token_logit(maximum(threshold_.score, floor_) - best, row_max_, inverse_sum_, options_);
    const bool has_shortlist = params_.rows.shortlist_size > 0;
    const int count = has_shortlist ? params_.rows.shortlist_size : collect_tokens();
    for (int first = 0; first < count;) {
      if (has_shortlist && !may_extend(shortlist_[first])) return;  // the shortlist is sorted
      // In each round a thread has one prefix and one token.
      const int prefixes = Fusion::kHasFusion || first == 0
                               ? prefix_count_
                               : minimum(prefix_count_, int(options_.beam_size) / first);
      if (prefixes == 0) return;
      int width = 1;
      while (width < prefixes && width < int(blockDim.x)) width *= 2;
      for (int first_rank = 0; first_rank < prefixes; first_rank += width) {
        const int at = first + int(threadIdx.x) / width, rank = first_rank + int(threadIdx.x) % width;
        Candidate candidate = no_candidate();
        if (at < count && rank < prefixes &&
            (Fusion::kHasFusion || can_enter_beam(rank, at, options_.beam_size)))
          candidate = extend(rank, has_shortlist ? shortlist_[at] : collected_token(at), max_gain);
        candidates->push(candidate.score > kNoScore && candidate.score >= floor_, candidate);
      }
      first += int(blockDim.x) / width;
    }
  }

  __device__ bool may_extend(const Token<Real>& token) const {
    return token.logit > kMinusInfinity<Real> && token.logit >= min_logit_;
  }

  __device__ Token<Real> collected_token(int i) const {
    const int32_t token = params_.scratch.tokens[n_ * params_.classes + i];
    return {logit_of(token), token};
  }

  // Collects the tokens that may extend prefixes, in any order, and returns their number.
  __device__ int collect_tokens() {
    int32_t* tokens = params_.scratch.tokens + n_ * params_.classes;
    if (threadIdx.x == 0) *counter_ = 0;
    __syncthreads();
    for (int c = threadIdx.x; c < params_.classes; c += blockDim.x)
      if (c != options_.blank && may_extend({logit_of(c), c})) tokens[atomicAdd(counter_, 1)] = c;
    __syncthreads();
    const int count = *counter_;
    __syncthreads();  // before the counter is reused
    return count;
  }

  // The extension of a prefix by a token, or no_candidate() if it cannot enter the beam.
  __device__ Candidate extend(int rank, const Token<Real>& token, double max_gain) const {
    if (!may_extend(token)) return no_candidate();
    const Extended<Real> token_emission = emission_of(token.logit);
    const BeamEntry<State>& entry = entries_[rank];
    const double max_score =
        score_of(probabilities_[rank].total, entry.fusion_score) + score_of(token_emission, 0) + max_gain;
    if (max_score <= threshold_.score || max_score < floor_ || is_in_beam(extension_key(rank, token.token)))
      return no_candidate();
    const Extended<Real> probability = normalized(extendable(rank, token.token) * token_emission);
    if (is_zero(probability)) return no_candidate();
    State state = entry.state;
    const double fusion_score = entry.fusion_score + params_.fusion.step(&state, token.token, n_);
    return {score_of(probability, fusion_score), ids_.extension(rank, token.token)};
  }

  __device__ bool is_in_beam(int64_t key) const {
    bool found = false;
    for (int i = 0; i < prefix_count_; ++i) found |= shared_.extension_keys[i] == key;
    return found;
  }

  // 4. Counts the sorted candidates that form the next beam.
  __device__ int count_survivors(int sorted) {
    const double floor =
        sorted == 0 ? 0 : score_floor<Fusion::kHasFusion>(shared_.candidates[0].score, options_);
    const auto survives = [&](int i) {
      return shared_.candidates[i].score > kNoScore && shared_.candidates[i].score >= floor;
    };
    if (threadIdx.x == 0) *counter_ = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < sorted; i += blockDim.x)
      if (survives(i) && (i + 1 == sorted || !survives(i + 1))) *counter_ = i + 1;
    __syncthreads();
    return *counter_;
  }

  // 5. Writes the prefixes of the next beam.
  __device__ void write_prefixes(int64_t t) {
    for (int i = threadIdx.x; i < prefix_count_; i += blockDim.x) {
      const auto id = int32_t(shared_.candidates[i].id);
      if (ids_.is_extension(id)) {
        const int rank = ids_.rank(id);
        const int32_t token = ids_.token(id), node = int32_t(t * options_.beam_size + i) + 1;
        const BeamEntry<State>& parent = entries_[rank];
        const Extended<Real> probability = normalized(extendable(rank, token) * emission_of(logit_of(token)));
        State state = parent.state;
        const double fusion_score = parent.fusion_score + params_.fusion.step(&state, token, n_);
        nodes_[node - 1] = {parent.node, token};
        next_entries_[i] = parent.extended(kNone, token, node, state, fusion_score);
        next_probabilities_[i] = {Extended<Real>::zero(), probability, probability};
      } else {
        next_entries_[i] = entries_[id];
        next_probabilities_[i] = updated_[id];
      }
      shared_.hash[i] = next_entries_[i].hash;
    }
    __syncthreads();
  }

  // 6. Finds the parents in the next beam.
  __device__ void find_parents() {
    for (int i = threadIdx.x; i < prefix_count_; i += blockDim.x) {
      BeamEntry<State>& entry = next_entries_[i];
      entry.parent = kNone;
      for (int other = 0; entry.length > 0 && other < prefix_count_; ++other)
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
  const SharedMemory shared_;
  int* const top_k_count_;
  int* const counter_;
  const int64_t n_;
  CandidateIds ids_;
  // By rank: the current beam, the next beam, and the current prefixes after the frame.
  BeamEntry<State>*entries_, *next_entries_;
  PrefixProbability<Real>*probabilities_, *next_probabilities_, *updated_;
  Node* nodes_;
  int prefix_count_;  // in the beam
  // The current frame:
  const Storage* row_;
  const Token<Real>* shortlist_;
  Real row_max_, inverse_sum_, min_logit_;
  Candidate threshold_;
  double floor_;
};

template <class Storage, class Real, class Fusion>
__global__ void __launch_bounds__(kMaxSearchThreads)
    search_kernel(const __grid_constant__ SearchParams<Storage, Real, Fusion> params) {
  GPU_DYNAMIC_SHARED(Candidate, memory);  // (SharedMemory::bytes)
  GPU_SHARED(top_k_count, int);
  GPU_SHARED(counter, int);
  const int64_t n = blockIdx.x, length = params.length_of(n);
  bool usable = is_valid_length(length, params.frames);
  BlockSearch<Storage, Real, Fusion> search(params, SharedMemory(memory, params.options.beam_size),
                                            &top_k_count, &counter, n);
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
