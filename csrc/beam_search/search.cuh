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

#include "beam_search/best_items.cuh"
#include "beam_search/fusion.h"
#include "beam_search/hypotheses.cuh"
#include "beam_search/options.h"
#include "beam_search/tokens.cuh"
#include "common/emission.h"

namespace crnn::beam_search {

// The threads of a block for a beam: several prefixes a thread when it is large.
constexpr int kMostSearchThreads = 256;
constexpr int search_threads(int64_t beam) {
  return beam <= 64 ? 128 : kMostSearchThreads;
}

// What may be in the next beam.
struct Candidate {
  double score;    // bits
  int64_t number;  // see Numbering; as wide as the score, so that no byte is padding

  friend CRNN_INLINE bool operator<(const Candidate& a, const Candidate& b) {
    return a.score > b.score || (a.score == b.score && a.number < b.number);
  }
};

// Candidates are numbered in the order of ties: prefixes of the beam by rank, then extensions by rank and
// token.
struct Numbering {
  int32_t beam, classes;

  CRNN_INLINE int32_t extension(int32_t rank, int32_t token) const { return beam + rank * classes + token; }
  CRNN_INLINE bool is_extension(int32_t number) const { return number >= beam; }
  CRNN_INLINE int32_t rank(int32_t number) const { return (number - beam) / classes; }
  CRNN_INLINE int32_t token(int32_t number) const { return (number - beam) % classes; }
};

// Memory for all samples.
template <class Real, class State>
struct Scratch {
  Record<State>* records;  // (N, 2, beam)
  Mass<Real>* masses;      // (N, 2, beam)
  Mass<Real>* later;       // (N, beam): of the prefixes of the beam, a frame later
  Node* nodes;             // (N, T * beam): node number 1 + t * beam + r entered at frame t with rank r
  int32_t* tokens;         // (N, C): those that may extend at this frame, where none are listed
};

template <class Storage, class Real, class Fusion>
struct Problem {
  Rows<const Storage> logits;  // (T, N, C)
  IndexView length_of;         // (N,)
  int64_t frames;              // T
  int32_t classes;             // C
  Options options;
  Fusion fusion;
  Frames<Real> rows;
  Scratch<Real, typename Fusion::State> scratch;
  Hypotheses<Real> hypotheses;
};

// What the threads of a block look through.
struct Shared {
  Candidate* candidates;  // (BestItems::capacity(beam, threads))
  Identity* identity;     // (beam)
  int64_t* last_label;    // (beam): which prefix it is of the beam, and by which token that was extended

  static constexpr size_t bytes(int64_t beam) {
    return BestItems<Candidate>::capacity(beam, search_threads(beam)) * sizeof(Candidate) +
           beam * (sizeof(Identity) + sizeof(int64_t));
  }
  __device__ Shared(Candidate* memory, int64_t beam) : candidates(memory) {
    identity = reinterpret_cast<Identity*>(candidates + BestItems<Candidate>::capacity(beam, blockDim.x));
    last_label = reinterpret_cast<int64_t*>(identity + beam);
  }
};

CRNN_INLINE int64_t label_of(int32_t parent, int32_t token) {
  return int64_t(parent) * (int64_t(1) << 32) + token;
}

template <class Storage, class Real, class Fusion>
class BlockSearch {
  using State = typename Fusion::State;
  using Candidates = BestItems<Candidate>;

 public:
  // count, number: ints in shared memory. As all functions here, for every thread of the block.
  __device__ BlockSearch(const Problem<Storage, Real, Fusion>& problem, const Shared& shared, int* count,
                         int* number, int64_t n)
      : problem_(problem), options_(problem.options), shared_(shared), count_(count), number_(number), n_(n) {
    const int64_t beam = options_.beam;
    numbering_ = {int32_t(beam), problem.classes};
    records_ = problem.scratch.records + n * 2 * beam;
    masses_ = problem.scratch.masses + n * 2 * beam;
    next_records_ = records_ + beam;
    next_masses_ = masses_ + beam;
    later_ = problem.scratch.later + n * beam;
    nodes_ = problem.scratch.nodes + n * problem.frames * beam;
    held_ = 1;
    if (threadIdx.x == 0) {
      records_[0] = empty_prefix(options_.blank, problem.fusion.start(n));
      masses_[0] = {Extended<Real>::one(), Extended<Real>::zero(), Extended<Real>::one()};
      shared_.last_label[0] = label_of(kNone, 0);
    }
    __syncthreads();
  }

  __device__ void read_frame(int64_t t) {
    const int64_t at = n_ * problem_.frames + t;
    row_ = problem_.logits.row(t, n_);
    listed_ = problem_.rows.tokens + at * problem_.rows.listed;
    peak_ = problem_.rows.peak[at];
    inverse_sum_ = problem_.rows.inverse_sum[at];

    advance();
    Candidates candidates(shared_.candidates, count_, held_, int(options_.beam), no_candidate());
    find_bounds();
    candidates.raise(bar_);
    offer_extensions(&candidates);
    const int sorted = candidates.settle();
    held_ = candidates_that_live(sorted);
    write_prefixes(t);
    find_parents();
    swap(&records_, &next_records_);
    swap(&masses_, &next_masses_);
  }

  // The n-best at the end of the text.
  __device__ void finish() {
    for (int i = threadIdx.x; i < held_; i += blockDim.x) {
      const Record<State>& record = records_[i];
      const double added = record.added + problem_.fusion.end(record.state, n_);
      shared_.candidates[i] = {log2_of(masses_[i].total) + added * kLog2E, i};
    }
    Candidates candidates(shared_.candidates, count_, held_, int(options_.beam), no_candidate());
    const int sorted = candidates.settle();
    put_all([&](int k) {
      const Candidate best = k < sorted ? shared_.candidates[k] : no_candidate();
      if (!(best.score > kNothing)) return Hypothesis<Real>::missing(kMinusInfinity<Real>);
      const Record<State>& record = records_[best.number];
      const double log2 = log2_of(masses_[best.number].total);
      return Hypothesis<Real>{record.length, record.node, Real(best.score * kLn2), Real(log2 * kLn2)};
    });
  }

  // Instead of finish(), for a sample that cannot be read.
  __device__ void give_up() {
    put_all([](int) { return Hypothesis<Real>::missing(std::numeric_limits<Real>::quiet_NaN()); });
  }

 private:
  static constexpr double kNothing = -std::numeric_limits<double>::infinity();

  static __device__ Candidate no_candidate() { return {kNothing, INT32_MAX}; }

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
    return Fusion::kAdds ? log2_of(mass) + added * kLog2E : order_of(mass);
  }

  __device__ Extended<Real> emission_of(Real logit) const {
    return normalised(emission(logit, peak_, inverse_sum_));
  }
  __device__ Real logit_of(int token) const {
    return gpu::to_compute(row_[token * problem_.logits.stride_c]);
  }

  __device__ Extended<Real> continued(int rank, int32_t token) const {
    return continued_by(token, records_[rank].last, masses_[rank].blank, masses_[rank].total);
  }

  // 1. The prefixes of the beam, a frame later.
  __device__ void advance() {
    const Extended<Real> of_blank = emission_of(logit_of(int(options_.blank)));
    for (int i = threadIdx.x; i < held_; i += blockDim.x) {
      const Record<State>& record = records_[i];
      const Extended<Real> arriving =
          record.parent == kNone ? Extended<Real>::zero() : continued(record.parent, record.last);
      const Mass<Real> mass = after_frame(masses_[i].total, masses_[i].label, arriving, of_blank,
                                          emission_of(logit_of(record.last)));
      later_[i] = mass;
      shared_.candidates[i] = {has_vanished(mass.total) ? kNothing : score_of(mass.total, record.added), i};
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
    ends = gpu::folded_over_block(ends, joined);
    bar_ = held_ == options_.beam ? ends.worst : no_candidate();
    floor_ = lowest_beside<Fusion::kAdds>(ends.best.score, options_);
  }

  // 3.
  __device__ void offer_extensions(Candidates* candidates) {
    if (held_ == 0) return;
    const double gain = problem_.fusion.largest_step() * kLog2E + 2 * kOrderSlack;
    const double best = score_of(masses_[0].total, records_[0].added) + gain;
    least_ = least_logit(larger(bar_.score, floor_) - best, peak_, inverse_sum_, options_);
    const bool ranked = problem_.rows.listed > 0;
    const int count = ranked ? problem_.rows.listed : list_tokens();
    for (int first = 0; first < count;) {
      if (ranked && !may_extend(listed_[first])) return;  // nor do those behind it
      // In a round each thread has one prefix and one token.
      const int prefixes = Fusion::kAdds || first == 0 ? held_ : smaller(held_, int(options_.beam) / first);
      if (prefixes == 0) return;
      int width = 1;
      while (width < prefixes && width < int(blockDim.x)) width *= 2;
      for (int first_rank = 0; first_rank < prefixes; first_rank += width) {
        const int at = first + int(threadIdx.x) / width, rank = first_rank + int(threadIdx.x) % width;
        Candidate candidate = no_candidate();
        if (at < count && rank < prefixes && (Fusion::kAdds || may_enter(rank, at, options_.beam)))
          candidate = extension(rank, ranked ? listed_[at] : listed_here(at), gain);
        candidates->offer(candidate.score > kNothing && candidate.score >= floor_, candidate);
      }
      first += int(blockDim.x) / width;
    }
  }

  __device__ bool may_extend(const Token<Real>& token) const {
    return token.logit > kMinusInfinity<Real> && token.logit >= least_;
  }

  __device__ Token<Real> listed_here(int i) const {
    const int32_t token = problem_.scratch.tokens[n_ * problem_.classes + i];
    return {logit_of(token), token};
  }

  // Lists the tokens that may extend prefixes, in any order, and returns how many there are.
  __device__ int list_tokens() {
    int32_t* tokens = problem_.scratch.tokens + n_ * problem_.classes;
    if (threadIdx.x == 0) *number_ = 0;
    __syncthreads();
    for (int c = threadIdx.x; c < problem_.classes; c += blockDim.x)
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
    const Record<State>& record = records_[rank];
    const double most = score_of(masses_[rank].total, record.added) + score_of(of_token, 0) + gain;
    if (most <= bar_.score || most < floor_ || is_in_beam(label_of(rank, token.token))) return no_candidate();
    const Extended<Real> mass = normalised(continued(rank, token.token) * of_token);
    if (has_vanished(mass)) return no_candidate();
    State state = record.state;
    const double added = record.added + problem_.fusion.step(&state, token.token, n_);
    return {score_of(mass, added), numbering_.extension(rank, token.token)};
  }

  __device__ bool is_in_beam(int64_t label) const {
    bool found = false;
    for (int i = 0; i < held_; ++i) found |= shared_.last_label[i] == label;
    return found;
  }

  // 4. How many of the sorted candidates are in the next beam.
  __device__ int candidates_that_live(int sorted) {
    const double floor =
        sorted == 0 ? 0 : lowest_beside<Fusion::kAdds>(shared_.candidates[0].score, options_);
    const auto lives = [&](int i) {
      return shared_.candidates[i].score > kNothing && shared_.candidates[i].score >= floor;
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
      if (numbering_.is_extension(number)) {
        const int rank = numbering_.rank(number);
        const int32_t token = numbering_.token(number), node = int32_t(t * options_.beam + i) + 1;
        const Record<State>& parent = records_[rank];
        const Extended<Real> mass = normalised(continued(rank, token) * emission_of(logit_of(token)));
        State state = parent.state;
        const double added = parent.added + problem_.fusion.step(&state, token, n_);
        nodes_[node - 1] = {parent.node, token};
        next_records_[i] = parent.extended(kNone, token, node, state, added);
        next_masses_[i] = {Extended<Real>::zero(), mass, mass};
      } else {
        next_records_[i] = records_[number];
        next_masses_[i] = later_[number];
      }
      shared_.identity[i] = next_records_[i].identity;
    }
    __syncthreads();
  }

  // 6.
  __device__ void find_parents() {
    for (int i = threadIdx.x; i < held_; i += blockDim.x) {
      Record<State>& record = next_records_[i];
      record.parent = kNone;
      for (int other = 0; record.length > 0 && other < held_; ++other)
        if (shared_.identity[other] == record.parent_identity) record.parent = other;
      shared_.last_label[i] = label_of(record.parent, record.last);
    }
    __syncthreads();
  }

  template <class HypothesisOf>
  __device__ void put_all(const HypothesisOf& hypothesis_of) const {
    put_hypotheses(problem_.hypotheses, n_, options_.nbest, problem_.frames, nodes_, hypothesis_of);
  }

  const Problem<Storage, Real, Fusion>& problem_;
  const Options& options_;
  const Shared shared_;
  int* const count_;
  int* const number_;
  const int64_t n_;
  Numbering numbering_;
  // By rank: the beam, the next one, and the prefixes of the beam a frame later.
  Record<State>*records_, *next_records_;
  Mass<Real>*masses_, *next_masses_, *later_;
  Node* nodes_;
  int held_;  // prefixes in the beam
  // The frame.
  const Storage* row_;
  const Token<Real>* listed_;
  Real peak_, inverse_sum_, least_;
  Candidate bar_;
  double floor_;
};

template <class Storage, class Real, class Fusion>
__global__ void __launch_bounds__(kMostSearchThreads)
    search_kernel(const __grid_constant__ Problem<Storage, Real, Fusion> problem) {
  GPU_DYNAMIC_SHARED(Candidate, memory);  // (Shared::bytes)
  GPU_SHARED(count, int);
  GPU_SHARED(number, int);
  const int64_t n = blockIdx.x, length = problem.length_of(n);
  bool usable = is_possible_length(length, problem.frames);
  BlockSearch<Storage, Real, Fusion> search(problem, Shared(memory, problem.options.beam), &count, &number,
                                            n);
  for (int64_t t = 0; usable && t < length; ++t) {
    const Real inverse_sum = problem.rows.inverse_sum[n * problem.frames + t];
    usable = inverse_sum == inverse_sum;  // not NaN
    if (usable) search.read_frame(t);
  }
  if (usable) {
    search.finish();
  } else {
    search.give_up();
  }
}

}  // namespace crnn::beam_search
