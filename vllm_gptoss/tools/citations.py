"""Citations in a model's answer: `【3†L5-L9】`, as harmony's description of the browser asks for them.

The text stays as it is, so that a stream says what the whole says and the next prompt has what the model wrote; a
client can put a link in the place of each mark. A mark that cites nothing, because it is unfinished, has no such cursor
or stands for no page, is text like any other.
"""

import re
from collections.abc import Mapping
from typing import Literal, TypedDict

from vllm_gptoss.tools.visit import Visit

# Models write lines in other ways too; the cursor alone says which page is meant.
_MARK = re.compile(r"【(?P<cursor>\d{1,6})†(?:L(?P<line>\d{1,9}))?[^【】]{0,200}】")


class Annotation(TypedDict):
    """As in the Responses API: places in characters of the text, the end exclusive."""

    type: Literal["url_citation"]
    start_index: int
    end_index: int
    url: str
    title: str


def annotations(text: str, visits: Mapping[int, Visit]) -> list[Annotation]:
    """The citations in `text`, by the pages behind the cursors."""
    found = []
    for match in _MARK.finditer(text):
        page = visits.get(int(match["cursor"]))
        source = page.source_of(int(match["line"] or 0)) if page is not None else None
        if source is not None and source.url:
            found.append(
                Annotation(
                    type="url_citation",
                    start_index=match.start(),
                    end_index=match.end(),
                    url=source.url,
                    title=source.title or source.url,
                )
            )
    return found
