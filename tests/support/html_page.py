"""A reader of HTML that is strict."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Checks nesting and unique ids while reading, and keeps every element with its attributes and
    text.
    """

    def __init__(self, text: str):
        super().__init__()
        self.open: list[int] = []
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open
        ids = [attributes["id"] for _, attributes, _ in self.elements if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in ("meta", "br"):
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag):
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data):
        for index in self.open:
            self.elements[index][2].append(data)

    def find(self, tag: str, **wanted: str) -> list[tuple[dict[str, str | None], str]]:
        found = [
            (attributes, "".join(text)) for name, attributes, text in self.elements if name == tag
        ]
        return [
            (attributes, text)
            for attributes, text in found
            if all(attributes.get(k.rstrip("_")) == v for k, v in wanted.items())
        ]
