"""Learning rates match torch's one-cycle schedule."""

import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("cv2")

from crnn_ext.ocr.training.schedule import one_cycle


@pytest.mark.parametrize("steps", [20, 97, 1000])
@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.9])
def test_one_cycle_matches_torch(steps, warmup):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=warmup)
    for step in range(steps):
        assert one_cycle(step, steps, 2e-3, warmup) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0, 0.1, 0.9])
def test_one_cycle_few_steps(steps, warmup):
    assert all(0 < one_cycle(step, steps, 1.0, warmup) <= 1 for step in range(steps))
