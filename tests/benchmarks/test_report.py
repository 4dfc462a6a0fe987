"""Results reach the file row by row, with where they come from; tables and pictures are made of them."""

import csv

import pytest

from benchmarks import figure, plan
from benchmarks.report import Report, provenance
from benchmarks.timing import Timing

SAMPLES = {"stock": (3.0, 3.1, 2.9), "marlin": (4.0, 4.1, 4.2), "plugin": (1.5, 1.5, 1.6)}


def read(path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def serve_rows(batch: int) -> list[dict]:
    rows = []
    for name, samples in SAMPLES.items():
        timing = Timing.of(samples)
        row = {"model": "20b", "kind": "decode", "batch": batch, "tokens": 1024, "variant": name}
        row |= {
            "ms": timing.median,
            "ms_p20": timing.p20,
            "ms_p80": timing.p80,
            "tokens/s": batch / timing.median * 1e3,
        }
        ratio = 2.0 if name == "plugin" else None
        row |= {"floor_ms": 0.87, "floor_%": 87 / timing.median, "ratio": ratio, "ratio_min": ratio, "ratio_max": ratio}
        rows.append(row)
    return rows


def test_an_interrupted_run_keeps_its_rows(tmp_path):
    report = Report("op", tmp_path, commit="abc")
    for value in (1, 2):
        report.add({"shape": "decode", "us": float(value)})
        assert [row["us"] for row in read(report.path)] == ["1", "2"][:value]
    assert read(report.path)[1].keys() >= {"GPU", "commit", "vllm", "torch", "triton", "command"}
    assert read(report.path)[0]["commit"] == "abc"
    with pytest.raises(ValueError, match="columns"):
        report.add({"shape": "decode"})


def test_the_command_is_the_one_to_repeat(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmarks", "gate_up", "--out", str(tmp_path), "--rounds", "3", "--commit=abc"])
    assert provenance("cpu")["command"] == "python -m benchmarks gate_up --rounds 3"


def test_a_row_of_an_operation(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.report.gpu_name", lambda: "NVIDIA H200")
    report = Report("op", tmp_path)
    report.add_op("M=1", Timing.of([10.0]), moved_bytes=21.5e6, flops=1e6, baseline=Timing.of([25.0]))
    (row,) = read(report.path)
    assert report.path.name == "nvidia-h200_op.csv"
    assert (row["GB/s"], row["floor_%"], row["ratio"]) == ("2150", "50", "2.5")
    assert "10.00 (10.00-10.00)" in capsys.readouterr().out


def test_table_and_picture_of_a_model(tmp_path):
    report = Report("serve_20b", tmp_path)
    for batch in (1, 8):
        for row in serve_rows(batch):
            report.add(row)
    lines = plan.serve_table(report.rows).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["decode", "1", "x"], ["decode", "8", "x"]]
    assert "3.00 (2.94-3.06)" in lines[1]
    assert "2.000 (2.000-2.000)" in lines[1]
    pytest.importorskip("matplotlib")
    assert figure.draw(report.path).read_bytes().startswith(b"\x89PNG")


def test_a_picture_needs_decode_steps(tmp_path):
    report = Report("serve_20b", tmp_path)
    report.add({**serve_rows(1)[0], "kind": "prefill"})
    with pytest.raises(figure.NothingToDrawError, match="decode"):
        figure.draw(report.path)
