// Splits a batch into slices that are processed one after the other in the same scratch memory.
#pragma once

#include "common/statistics_mode.h"
#include "targets/device_batch.h"

namespace crnn {

// Maximum scratch memory of a slice of padded targets, in bytes, unless a single text needs more.
constexpr int64_t kMaxScratchBytes = int64_t(1) << 28;

// The shape of the slices of padded targets: some texts of all samples, or, if one text of each sample is too
// much, one text of some samples. Depends on shapes only, so nothing waits for lengths: a text counts with
// its padding. Concatenated targets form a single slice.
//
// bytes_of(shape): scratch memory for a slice of that shape, proportional to its number of texts
template <class BytesOf>
BatchShape choose_slice_shape(const BatchShape& shape, const BytesOf& bytes_of,
                              int64_t max_bytes = kMaxScratchBytes) {
  if (!shape.padded || shape.texts() == 0) return shape;
  // Splits into equal parts of at most max_size.
  const auto part = [](int64_t count, int64_t max_size) {
    const int64_t parts = (count + max_size - 1) / max_size;
    return (count + parts - 1) / parts;
  };
  BatchShape slice = shape;
  slice.samples = slice.texts_per_sample = 1;
  slice.labels = shape.padded_length;
  const int64_t texts = maximum<int64_t>(1, max_bytes / maximum<int64_t>(1, bytes_of(slice)));
  slice.samples = part(shape.samples, texts);
  slice.texts_per_sample = part(shape.texts_per_sample, maximum<int64_t>(1, texts / slice.samples));
  slice.labels = slice.texts() * shape.padded_length;
  return slice;
}

struct Slice {
  DeviceBatch batch;
  int64_t first_sample;
  int64_t first_text;  // index in the whole batch
  bool is_first;       // first among the slices of its samples

  // Only the first slice of a sample computes the statistics of its rows; the following slices reuse them.
  StatisticsMode statistics_mode(bool normalize) const {
    if (!normalize) return StatisticsMode::kNone;
    return is_first ? StatisticsMode::kCompute : StatisticsMode::kReuse;
  }
};

// Calls body(slice) for slices of equal shape that cover the batch. The last slices may overlap earlier ones.
// Slices of the same samples are consecutive.
template <class Body>
void for_each_slice(const DeviceBatch& batch, const BatchShape& shape, const Body& body) {
  const BatchShape& all = batch.shape;
  if (all.texts() == 0) return;
  for (int64_t n = 0; n < all.samples; n += shape.samples) {
    for (int64_t k = 0; k < all.texts_per_sample; k += shape.texts_per_sample) {
      const int64_t sample = minimum(n, all.samples - shape.samples);
      const int64_t text =
          sample * all.texts_per_sample + minimum(k, all.texts_per_sample - shape.texts_per_sample);
      body(Slice{{shape, batch.blank, batch.targets.from(text), batch.input_lengths.from(sample),
                  batch.target_lengths.from(text), batch.target_offsets, all.samples, all.texts_per_sample},
                 sample,
                 text,
                 k == 0});
    }
  }
}

}  // namespace crnn
