"""gpt-oss's built-in tools, browser and python, as a library: no vLLM, no package `gpt-oss`.

They speak harmony messages, or plain strings: `Browser.call(function, arguments)` and `Python.run(code)`.
"""
