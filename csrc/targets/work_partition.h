// How threads share a batch: by samples, or, if there are fewer samples than threads, first by rows of all
// samples and then by texts.
#pragma once

#include "common/parallel.h"
#include "common/rows.h"
#include "targets/batch_shape.h"

namespace crnn {

struct WorkPartition {
  int64_t chunk_rows;         // rows that are worth one thread
  int64_t chunks_per_sample;  // chunks of that many rows per sample
  int64_t row_workers;        // for the chunks of all samples
  bool rows_first;
  int64_t workers;  // for texts if rows_first, otherwise for samples

  explicit WorkPartition(const BatchShape& shape)
      : chunk_rows(rows_per_chunk(shape.classes)),
        chunks_per_sample(ceil_div(shape.frames, chunk_rows)),
        row_workers(num_workers(shape.samples * chunks_per_sample, 1)) {
    // Waking a thread pays off for about a thousand vectors of rows and lattice.
    const int64_t lattice = 8 * (shape.labels / maximum<int64_t>(1, shape.samples) + 16);
    const int64_t work = shape.frames * (shape.classes + lattice);
    const int64_t grain = kGrainSize / maximum<int64_t>(1, work);
    workers = num_workers(shape.samples, grain);
    rows_first = workers == shape.samples && row_workers > workers;
    if (rows_first) workers = num_workers(shape.texts(), grain);
  }

  // Calls on_rows(n, begin, end, worker) for all rows; their results serve all texts of the sample. Calls
  // on_text(m, n, with_rows, worker) for all texts; with_rows: on_rows has not run for this sample, and
  // on_text must do its work.
  template <class OnRows, class OnText>
  void run(const BatchShape& shape, const OnRows& on_rows, const OnText& on_text) const {
    const int64_t texts = shape.texts_per_sample;
    if (!rows_first) {
      parallel_for(shape.samples, workers, [&](int64_t n, int64_t worker) {
        for (int64_t k = 0; k < texts; ++k) on_text(n * texts + k, n, k == 0, worker);
      });
      return;
    }
    parallel_for(shape.samples * chunks_per_sample, row_workers, [&](int64_t item, int64_t worker) {
      const int64_t begin = item % chunks_per_sample * chunk_rows;
      on_rows(item / chunks_per_sample, begin, minimum(begin + chunk_rows, shape.frames), worker);
    });
    parallel_for(shape.texts(), workers,
                 [&](int64_t m, int64_t worker) { on_text(m, m / texts, false, worker); });
  }
};

}  // namespace crnn
