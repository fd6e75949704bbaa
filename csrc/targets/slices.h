// A batch whose scratch memory would be too much is taken in slices, one after the other in the same memory.
#pragma once

#include "common/statistics_mode.h"
#include "targets/device_batch.h"

namespace crnn {

// Bytes of scratch memory that a slice of padded targets takes, unless a single text needs more.
constexpr int64_t kMaxScratchBytes = int64_t(1) << 28;

// The shape of the slices that padded targets are taken in: of all samples some of their texts, or where not
// even one of each fits, some samples with one text each. It follows from shapes alone, so that nothing waits
// for lengths: a text counts as long as its padding. Concatenated targets have none, and are one slice.
//
// bytes_of(shape): scratch memory for a slice of that shape, in proportion to its texts
template <class BytesOf>
BatchShape choose_slice_shape(const BatchShape& shape, const BytesOf& bytes_of,
                              int64_t max_bytes = kMaxScratchBytes) {
  if (!shape.padded || shape.texts() == 0) return shape;
  // In equal parts, none of them larger than `most`.
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
  int64_t first_text;  // its number in the whole batch
  bool is_first;       // of the slices of its samples

  // Those of its rows: the later slices of the same samples find them where the first one has put them.
  StatisticsMode statistics_mode(bool normalize) const {
    if (!normalize) return StatisticsMode::kNone;
    return is_first ? StatisticsMode::kCompute : StatisticsMode::kReuse;
  }
};

// Calls body(slice) for slices of one shape that cover the batch; the last ones may overlap those before. The
// slices of the same samples come one behind the other.
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
