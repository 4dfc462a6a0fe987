"""Repairs: each counted under its kind, at once and once; one line of log for many."""

import logging

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest
from spelling import THOUGHT as T
from spelling import in_letters, spell
from views import chat_parser, chat_request, parsed, responses_request, said, streamed

from vllm_gptoss.parsers import metrics
from vllm_gptoss.parsers.metrics import KINDS, LOG_EVERY, RepairLog, repair_log


@pytest.fixture
def clock(monkeypatch):
    """`clock[0]` is the time."""
    now = [1000.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def log(registry, caplog):
    caplog.set_level(logging.INFO, logger="test_metrics")
    return RepairLog(Counter("repairs", "", ["kind"], registry=registry), logging.getLogger("test_metrics"))


def test_every_kind_is_there_from_the_start(log, registry):
    """A rate that begins at zero is a rate; one that begins to exist is none."""
    assert {kind: registry.get_sample_value("repairs_total", {"kind": kind}) for kind in KINDS} == dict.fromkeys(
        KINDS, 0
    )


def test_each_repair_counts_under_its_kind(log, registry):
    log.count(["channel", "end", "channel"])
    log.count(["channel"])
    assert registry.get_sample_value("repairs_total", {"kind": "channel"}) == 3
    assert registry.get_sample_value("repairs_total", {"kind": "end"}) == 1
    assert registry.get_sample_value("repairs_total", {"kind": "start"}) == 0


def test_one_line_in_a_while(log, clock, caplog):
    for _ in range(100):
        log.count(["channel", "end"])
        clock[0] += LOG_EVERY / 200
    assert len(caplog.records) == 1
    clock[0] += LOG_EVERY
    log.count(["start"])
    assert len(caplog.records) == 2


def test_a_line_sums_up_what_was_not_logged(log, clock, caplog):
    log.count(["channel"])
    assert "1 x channel" in caplog.messages[-1]
    log.count(["end", "channel", "channel"])
    clock[0] += LOG_EVERY
    log.count(["start"])
    for words in ("2 x channel", "1 x end", "1 x start", KINDS["start"]):
        assert words in caplog.messages[-1]


def test_no_repair_is_no_line(log, caplog):
    log.count([])
    assert caplog.records == []


def test_there_is_one_log_in_a_process():
    """A second counter of the same name would be an error."""
    assert repair_log() is repair_log()


def counted(kind: str) -> float:
    return REGISTRY.get_sample_value("vllm_gptoss_harmony_repairs_total", {"kind": kind})


def test_its_name_on_the_metrics_page():
    repair_log()
    assert b'vllm_gptoss_harmony_repairs_total{kind="not_offered"}' in generate_latest(REGISTRY)


MALFORMED = {
    "start": spell(f"{T}<|channel|>analysis<|message|>u<|end|><|channel|>final<|message|>Hi<|return|>"),
    "end": spell("<|channel|>analysis<|message|>t<|start|>assistant<|channel|>final<|message|>Hi<|return|>"),
    "message": spell("<|channel|>commentary to=functions.f<|call|>"),
    "stray": spell("<|channel|>final<|message|>H<|message|>i<|return|>"),
    "doubled": spell("assistant<|channel|>final<|message|>Hi<|return|>"),
    "spelt": in_letters("<|channel|>final<|message|>Hi<|return|>", "<|message|>"),
    "misplaced": spell("<|channel|>commentary json to=functions.f<|message|>{}<|call|>"),
    "role": spell(f"{T}<|channel|>final<|message|>Hi<|end|><|start|>user<|message|>Go on<|end|>"),
    "channel": spell("<|channel|>comment<|message|>Hi<|return|>"),
    "recipient": spell("<|channel|>final to=user<|message|>Hi<|return|>"),
    "text_in_header": spell("<|channel|>final Well, this<|message|>Hi<|return|>"),
    "not_offered": spell("<|channel|>commentary to=functions.g<|message|>{}<|call|>"),
    "invalid_json": spell("<|channel|>commentary to=functions.f<|message|>{<|call|>"),
}


def test_every_kind_has_a_stream():
    assert MALFORMED.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_counts_a_repair_once_in_each_mode(kind):
    """Whatever the pieces; and this one alone."""
    tokens, chat, responses = MALFORMED[kind], chat_request("f"), responses_request("f")
    repair_log()
    for read in (
        lambda: parsed(tokens, chat),
        lambda: streamed(tokens, chat),
        lambda: streamed(tokens, chat, []),
        lambda: said(tokens, responses),
        lambda: said(tokens, responses, []),
    ):
        before = {kind: counted(kind) for kind in KINDS}
        read()
        assert {other: counted(other) - before[other] for other in KINDS} == {other: other == kind for other in KINDS}


def test_counting_tokens_counts_no_repair():
    """vLLM asks for the reasoning tokens of what was parsed already, and of other ids."""
    tokens, request = MALFORMED["channel"], chat_request("f")
    parser = chat_parser(request)
    parsed(tokens, request, parser)
    before = counted("channel")
    parser.count_reasoning_tokens(tokens)
    parser.count_reasoning_tokens(tokens[:-1])
    assert counted("channel") == before


def test_well_formed_output_counts_nothing():
    before = {kind: counted(kind) for kind in KINDS}
    parsed(spell(f"{T}<|channel|>commentary to=functions.f json<|message|>{{}}<|call|>"), chat_request("f"))
    assert {kind: counted(kind) for kind in KINDS} == before
