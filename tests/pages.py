"""Pages for tests: what is in them, read as a browser would, and small ones of every kind."""

import json
import re
from html.parser import HTMLParser

import numpy as np
from cascades import random_cascade
from photos import photo

from vj.cascade.opencv_xml import save
from vj.images import write_image

# As a path it holds what would end a script, start another and leave an attribute.
HOSTILE = "x<!--\"'&<img src=y onerror=window.hit=1><"
HOSTILE_END = "script><script>window.hit=1<"


class Parsed(HTMLParser):
    """The elements of a page, with their attributes, and the text of each kind."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def rows_of(text, label):
    """Cells of the table in the region of this name, the head first."""
    body = re.search(rf'aria-label="{label}"><table>(.*?)</table>', text, re.DOTALL).group(1)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]


def data_of(text, kind):
    """Data of the parts of a kind."""
    found = re.findall(rf'data-part="{kind}"[^>]*><script type="application/json">(.*?)</script>', text, re.DOTALL)
    return [json.loads(one) for one in found]


def two_images(folder):
    """A folder with a cascade, `model.xml`, and in `set` an image with one label and one without any."""
    save(random_cascade(9, window=(12, 12)), folder / "model.xml")
    (folder / "set").mkdir()
    write_image(folder / "set" / "a.png", photo("astronaut")[:120, 150:300])
    write_image(folder / "set" / "b.png", photo("coffee")[:100, :100])
    rows = [{"file": "a.png", "faces": [{"bbox": [40, 20, 50, 60]}]}, {"file": "b.png", "faces": []}]
    (folder / "set" / "annotations.json").write_text(json.dumps(rows))
    return folder


def labelled_set(folder, calibration=None):
    """A folder with a cascade, `model.xml`, and labelled images in `set`, some of them with hits as labels."""
    import dataclasses

    from vj.detector import Detector

    folder.mkdir(parents=True, exist_ok=True)
    cascade = dataclasses.replace(random_cascade(9, window=(12, 12)), calibration=calibration)
    save(cascade, folder / "model.xml")
    (folder / "set").mkdir()
    rows = []
    for name, image in (
        ("a.png", photo("astronaut")[:120, 150:300]),
        ("b<i>&.png", photo("coffee")[:100, :100]),
        ("c.png", photo("chelsea")[60:200, 100:260]),
    ):
        write_image(folder / "set" / name, np.ascontiguousarray(image))
        found = Detector(cascade, min_neighbors=2, min_size=30).detect(np.ascontiguousarray(image))
        # Some of what is found, moved a little, and one that nothing finds.
        boxes = [[x + 2, y + 1, w, h] for x, y, w, h in found.boxes[::3].tolist()] + [[1, 1, 70, 15]]
        rows.append({"file": name, "faces": [{"bbox": box} for box in boxes]})
    (folder / "set" / "annotations.json").write_text(json.dumps(rows))
    return folder
