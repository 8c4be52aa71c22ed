"""A page as a tree, by the standard library, that must be well formed."""
from html.parser import HTMLParser

VOID = {'br', 'col', 'img', 'link', 'meta', 'source'}


class Element:
    """An element: its tag, attributes, and children (elements and texts)."""

    def __init__(self, tag, attributes):
        self.tag = tag
        self.attributes = attributes
        self.children = []

    def __getitem__(self, name):
        return self.attributes[name]

    def get(self, name):
        return self.attributes.get(name)

    def walk(self):
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def all(self, tag, class_=None):
        return [
            e for e in self.walk() if e.tag == tag
            and (class_ is None or class_ in (e.get('class') or '').split())]

    def one(self, tag, class_=None):
        found, = self.all(tag, class_)
        return found

    def by_id(self, name):
        found, = (e for e in self.walk() if e.get('id') == name)
        return found

    @property
    def text(self):
        return ' '.join(' '.join(
            c.text if isinstance(c, Element) else c
            for c in self.children).split())


class _Parser(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open = [Element('document', {})]

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), (tag, names)
        element = Element(tag, dict(attributes))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.open[-1].children.append(Element(tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(text):
    """The html element of a page, in which every tag is closed in order."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    document, = parser.open
    return document.one('html')
