"""What a browser would make of a page of ours."""

import json
import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, texts, and the data of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.data: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if tag == "script" and attributes.get("id"):
            self.data[attributes["id"]] = self.data.get(attributes["id"], "") + data
        else:
            self.texts.append(data)

    def of(self, name: str) -> list[str]:
        """Every value of an attribute."""
        return [attributes[name] for _, attributes in self.elements if attributes.get(name)]

    @property
    def confusion_images(self) -> dict:
        return json.loads(self.data["confusion-images"])

    @property
    def images(self) -> list[str]:
        return json.loads(self.data["images"])


def cells_of(text: str, caption: str) -> list[list[tuple[str, float | None]]]:
    """A table of a page by its caption: text and number of every cell."""
    start = text.index(f"<caption>{caption}")
    body = text[text.index("<tbody>", start) : text.index("</tbody>", start)]
    found = []
    for row in body.split("<tr>")[1:]:
        cells = re.findall(
            r'<t[hd](?: scope="row")?(?: class="number")?(?: data-value="([^"]*)")?>(.*?)</t[hd]>', row, re.S
        )
        found.append([(content, float(value) if value else None) for value, content in cells])
    return found
