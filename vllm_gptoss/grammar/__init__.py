"""Grammars: what the model may generate when a request asks for a form of answer or for calls."""
