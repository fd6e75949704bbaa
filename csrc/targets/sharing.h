// How threads share a batch: its samples, and where there are fewer of those than threads, first the rows of
// all samples and then their texts.
#pragma once

#include "common/parallel.h"
#include "common/rows.h"
#include "targets/batch_shape.h"

namespace crnn {

struct Sharing {
  int64_t piece;        // rows that are worth a thread
  int64_t pieces;       // of such a number of rows, in a sample
  int64_t row_workers;  // for the pieces of all samples
  bool rows_first;
  int64_t workers;  // for texts if the rows come first, otherwise for samples

  explicit Sharing(const BatchShape& shape)
      : piece(rows_per_piece(shape.classes)),
        pieces(divided_up(shape.frames, piece)),
        row_workers(workers_for(shape.samples * pieces, 1)) {
    // A thread is worth waking for about a thousand vectors of the rows and of the lattice.
    const int64_t lattice = 8 * (shape.labels / larger<int64_t>(1, shape.samples) + 16);
    const int64_t work = shape.frames * (shape.classes + lattice);
    const int64_t grain = kPiece / larger<int64_t>(1, work);
    workers = workers_for(shape.samples, grain);
    rows_first = workers == shape.samples && row_workers > workers;
    if (rows_first) workers = workers_for(shape.texts(), grain);
  }
};

}  // namespace crnn
