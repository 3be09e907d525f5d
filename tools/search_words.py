"""Words that the search of the built site finds a page or heading by, beside those of its text.

A page has its `tags` from the head of its file. The search plugin gives them to each heading of the
page too, so that a tag would find them all; this hook of MkDocs leaves them to the page. A heading
that is a name is found by the words in it: ZBox by "box".
"""

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

WORD = re.compile(r"[A-Z][a-z]{2,}")
NAME = re.compile(r"(?:[A-Z][a-z]*){2,}")


def on_post_build(config: MkDocsConfig) -> None:
    path = Path(config.site_dir) / "search" / "search_index.json"
    index = json.loads(path.read_text())
    for entry in index["docs"]:
        if "#" in entry["location"]:
            entry.pop("tags", None)
            name = entry["title"].split(" ")[0]  # a label, such as "property", comes after it
            if NAME.fullmatch(name):
                entry["tags"] = WORD.findall(name)
    path.write_text(json.dumps(index))
