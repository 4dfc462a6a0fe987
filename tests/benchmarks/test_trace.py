"""Kernels of a trace, summed by name over its steps."""

import gzip
import json

import pytest

from benchmarks.bench_trace import Kernel, events_of, summarize


def test_kernels_a_step(tmp_path):
    events = [
        {"cat": "user_annotation", "name": "execute_context_0(0)_generation_1(1)", "ts": t, "dur": 9} for t in (0, 10)
    ]
    for start in (0, 10):
        events.append({"cat": "kernel", "name": "small", "ts": start, "dur": 1})
        events += [{"cat": "kernel", "name": "large", "ts": start + at, "dur": 2} for at in (2, 5)]
    events.append({"cat": "cpu_op", "name": "aten::mm", "ts": 0, "dur": 50})
    path = tmp_path / "trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode()))
    summary = summarize(events_of(path))
    assert summary.kernels == [Kernel("large", 2.0, 4.0), Kernel("small", 1.0, 1.0)]
    assert (summary.steps, summary.busy_us, summary.step_us) == (2, 5.0, 8.5)


def test_kernels_that_overlap_count_once():
    spans = [(0, 4), (2, 6), (3, 5), (9, 10)]
    events = [{"cat": "kernel", "name": "k", "ts": start, "dur": end - start} for start, end in spans]
    summary = summarize([{"cat": "user_annotation", "name": "execute_context_0(0)_generation_1(1)"}, *events])
    assert (summary.busy_us, summary.kernels[0].us) == (7.0, 11.0)


def test_a_trace_without_a_gpu_is_refused():
    with pytest.raises(ValueError, match="no GPU"):
        summarize([{"cat": "cpu_op", "name": "aten::mm", "ts": 0, "dur": 50}])
