"""The audit of machine code in tests/cuda_compile, which `make check-cuda` runs."""

import pytest

from cuda_compile import kernel_usage
from cuda_compile.kernel_usage import Kernel, Usage, audit, limit_violations

PTX = """
.visible .entry _ZN4crnn3sumIfEEvT_(
	.param .f32 p
)
.maxntid 256, 1, 1
{
	ret;
}
"""
LOG = """
ptxas info    : Compiling entry function '_ZN4crnn3sumIfEEvT_' for 'sm_80'
ptxas info    : Function properties for _ZN4crnn3sumIfEEvT_
    8 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 1040 bytes smem
ptxas info    : Compile time = 1.0 ms
"""
SASS = """
//--------------------- .text._ZN4crnn3sumIfEEvT_ --------------------------
	.section	.text._ZN4crnn3sumIfEEvT_,"ax",@progbits
.text._ZN4crnn3sumIfEEvT_:
        /*0000*/                   DADD R2, R2, R4 ;
.L_x_0:
        /*0010*/                   FADD R2, R2, R4 ;
.L_x_1:
        /*0020*/               @P0 DFMA R2, R2, R4, R6 ;
        /*0030*/                   LDL R1, [R1] ;
        /*0040*/              @!P1 BRA `(.L_x_1) ;
        /*0050*/                   DMUL R2, R2, R4 ;
        /*0060*/               @P2 BRA `(.L_x_0) ;
        /*0070*/                   EXIT ;
"""
SUM = Kernel("sum", "float")


def test_usage():
    """One of the three float64 operations is in the innermost loop."""
    usages, failures = audit(PTX, LOG, SASS)
    assert usages == {SUM: Usage(registers=40, local_bytes=8, local_accesses=1, double_in_loops=1)}
    assert failures == []


def test_kernel_that_computes_in_double():
    usages, _ = audit(*(text.replace("sumIf", "sumId") for text in (PTX, LOG, SASS)))
    assert usages[Kernel("sum", "double")].double_in_loops == 0


@pytest.mark.parametrize(
    ("ptx", "log", "failure"),
    [
        (PTX.replace(".maxntid 256, 1, 1", ""), LOG, "sum has no launch bounds"),
        (PTX.replace("256", "512"), LOG.replace("40 reg", "129 reg"), "sum: 512 threads of 129 registers"),
        (PTX, LOG.replace("1040 bytes", "49153 bytes"), "sum: 49153 bytes of static shared memory"),
    ],
)
def test_kernel_that_cannot_be_launched(ptx, log, failure):
    assert audit(ptx, log, SASS)[1] == [failure]


@pytest.mark.parametrize("field", ["registers", "local_bytes", "local_accesses", "double_in_loops"])
def test_usage_beyond_its_limit(monkeypatch, field):
    limit = Usage(40, 8, 4, 2)
    monkeypatch.setattr(kernel_usage, "LIMITS", {SUM: limit})
    assert limit_violations({SUM: limit}) == []
    more = Usage(**{**vars(limit), field: getattr(limit, field) + 1})
    assert limit_violations({SUM: more}) == [f"{SUM} uses {more}, limit {limit}"]


def test_limits_name_each_kernel_and_no_other(monkeypatch):
    monkeypatch.setattr(kernel_usage, "LIMITS", {SUM: Usage(40)})
    new = Kernel("product", "float")
    assert limit_violations({new: Usage(30)}) == [
        f"{new} has no limit in kernel_usage.LIMITS; it uses {Usage(30)}",
        f"{SUM} in kernel_usage.LIMITS does not exist",
    ]
