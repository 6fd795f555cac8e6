"""Pages in a real browser: light and dark, without errors, with the keyboard, on a phone."""

import base64
import json
import re
import shutil

import numpy as np
import pytest
from cascades import random_cascade
from pages import HOSTILE, HOSTILE_END, data_of, labelled_set
from photos import gray

from vj.cascade.opencv_xml import load
from vj.cli import evaluate, inspect
from vj.detector import Detector
from vj.html.training import Run, training_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("needs chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")


def _until(page, expression):
    """Wait until an expression holds; the driver's own way needs `eval`, which the policy of the pages forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"{expression} does not hold")


NAMES = ["evaluation", "inspection", "training"]
PHONE = {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        # Without its sandbox it also runs as root, as in containers.
        one = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = labelled_set(tmp_path_factory.mktemp("browser") / HOSTILE / HOSTILE_END)
    model, images = str(place / "model.xml"), str(place / "set")
    options = ["--min-neighbors", "1", "--html", str(place / "evaluation.html")]
    assert evaluate.main([model, "--dataset", images, *options]) == 0
    assert inspect.main([model, images, "--html", str(place / "inspection.html")]) == 0
    (place / "training.html").write_text(_training())
    return place


def _training(status="finished", running=False):
    """A page of a run with every part, from reports that no run made."""
    from vj.boosting.progress import StageReport

    cascade = random_cascade(9, window=(12, 12))
    reports = [
        StageReport(k, n, 0.1, 0.99, 0.995, 0.4, 800, 200, 2000, 10**k * 3000, 0.4**k, 0.5, 1.5, "more data" * (k == 2))
        for k, n in enumerate(cascade.stage_sizes.tolist())
    ]
    windows = np.stack([gray("astronaut", (12 + k, 12 + k))[:12, :12] for k in range(50)])
    run = Run("runs/a<b>", reports, cascade, windows, windows[:20], ["a note"], 9)
    return training_page(run, status=status, running=running).render()


@pytest.fixture
def opened(browser, place):
    """Open a page; afterwards it must have had no error and no request."""
    contexts, wrong = [], []

    def open_page(name, **settings):
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | settings))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        path = place / f"{name}.html"
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or wrong.append(r.url))
        page.goto(path.as_uri())
        _until(page, "document.querySelectorAll('.u-over').length > 0")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_light_and_dark_without_errors(opened, name, scheme):
    page = opened(name, color_scheme=scheme)
    background, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    brightness = [sum(map(int, re.findall(r"\d+", color))) / 3 for color in (background, ink)]
    assert (
        (brightness[0] > 200 and brightness[1] < 60)
        if scheme == "light"
        else (brightness[0] < 60 and brightness[1] > 200)
    )
    # Every chart is drawn, and so is every image.
    assert page.evaluate("[...document.querySelectorAll('.plot')].every(p => p.querySelector('canvas').width > 100)")
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.evaluate("window.hit") is None
    # The colours of charts follow when the scheme changes.
    chart = "document.querySelector('.chart canvas').toDataURL()"
    before = page.evaluate(chart)
    page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
    _until(page, f"{chart} !== {json.dumps(before)}")


@pytest.mark.parametrize("name", NAMES)
def test_fits_a_phone(opened, name):
    page = opened(name, viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # Nothing sticks out of the page but what scrolls by itself.
    out = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide') && !e.closest('.hidden') && "
        "e.getBoundingClientRect().right > 391).map(e => e.outerHTML.slice(0, 80))"
    )
    assert out == []
    sizes = page.evaluate(
        "[...document.querySelectorAll('p, td, label')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_every_control_is_reached_by_tab_and_named(opened, name):
    page = opened(name)
    controls = "input, select, button, a[href], [tabindex='0']"
    wanted = page.evaluate(
        f"[...document.querySelectorAll({json.dumps(controls)})].filter(e => e.offsetParent && !e.disabled).length"
    )
    seen = 0
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
              const e = document.activeElement, s = getComputedStyle(e);
              if (e === document.body || e.dataset.seen) return null;
              e.dataset.seen = 1;
              const named = e.ariaLabel || e.labels && e.labels.length && e.labels[0].textContent || e.textContent;
              return [s.outlineStyle, parseFloat(s.outlineWidth), named.trim(), e.outerHTML.slice(0, 90)];
            }"""
        )
        if found is not None:
            seen += 1
            assert found[0] != "none" and found[1] >= 2 and found[2], found[3]
    assert seen == wanted


def test_sliders_choose_the_operating_point(opened, place):
    page = opened("evaluation")
    (data,) = data_of((place / "evaluation.html").read_text(), "operating")
    part = page.locator("[data-part=operating]")
    neighbors, level = part.locator("input[type=range]").nth(0), part.locator("input[type=range]").nth(1)
    curves = data["searches"][0]["curves"]

    def check(curve, k):
        true, false = curve["true"][k], curve["false"][k]
        threshold = curve["threshold"][k]
        assert part.get_attribute("data-point") == f"{curve['min_neighbors']} {threshold} {true} {false}"
        shown = part.locator("[data-is=recall]").text_content()
        assert shown == f"{100 * true / data['wanted'] + 1e-9:.1f} % ({true} of {data['wanted']})"
        assert part.locator("[data-is=false]").text_content().startswith(f"{false} (")
        assert part.locator("[data-is=time]").text_content() == f"{curve['milliseconds'] + 1e-9:.1f} ms"
        option = f" {data['options'][curve['kind'][k]]} {threshold}" if threshold else ""
        assert part.locator("code").text_content() == curve["command"][0] + option + curve["command"][1]

    # The default of vj-detect, without a threshold.
    assert data["searches"][0]["usual"] == 3
    usual = next(k for k, curve in enumerate(curves) if curve["min_neighbors"] == 3)
    check(curves[usual], len(curves[usual]["true"]) - 1)
    level.focus()
    page.keyboard.press("Home")
    check(curves[usual], 0)
    page.keyboard.press("ArrowRight")
    check(curves[usual], 1)
    page.keyboard.press("End")
    neighbors.focus()
    page.keyboard.press("ArrowLeft")
    check(curves[usual - 1], len(curves[usual - 1]["true"]) - 1)
    # Coarser scales.
    part.locator("select").select_option("1")
    check(data["searches"][1]["curves"][usual - 1], len(data["searches"][1]["curves"][usual - 1]["true"]) - 1)
    assert "--scale-factor 1.2" in part.locator("code").text_content()
    # The other rule for groups has other values of min_neighbors: the same one, or the next.
    part.locator("select").select_option("3")
    other = data["searches"][3]["curves"]
    near = next(one for one in other if one["min_neighbors"] >= curves[usual - 1]["min_neighbors"])
    check(near, len(near["true"]) - 1)
    assert "--suppression 0.3" in part.locator("code").text_content()


def test_the_command_line_is_copied(opened):
    page = opened("evaluation")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    part = page.locator("[data-part=operating]")
    part.locator("button").focus()
    page.keyboard.press("Enter")
    _until(page, "document.querySelector('[data-part=operating] button').textContent === 'Copied'")


@pytest.mark.parametrize("name", ["inspection", "evaluation"])
def test_a_window_is_chosen_and_followed(opened, place, name):
    page = opened(name)
    (data,) = data_of((place / f"{name}.html").read_text(), "depth")
    image, stages = data["images"][0], len(data["cascade"]["limits"])
    part, told = page.locator("[data-part=depth]"), page.locator(".told")
    columns, rows = image["grid"]
    cells = image["bands"][0]["cells"]

    def chosen(cell):
        window = image["windows"][cells[cell]]
        x, y, w, h = (int(np.floor(v + 0.5)) for v in window["box"])
        words = told.text_content()
        assert f"Window of {w}×{h} px at ({x}, {y})" in words
        if window["depth"] == stages:
            assert f"passes all {stages} stages" in words
        elif window["depth"] >= 0:
            assert f"passes {window['depth']} of {stages} stages and fails stage {window['depth'] + 1}" in words
        else:
            assert "too flat" in words

    # It begins with the deepest.
    deepest = max(window["depth"] for window in image["windows"])
    assert deepest == stages and f"passes all {stages} stages" in told.text_content()
    # By mouse, in the middle of a cell that has a window.
    cell = next(k for k, index in enumerate(cells) if index >= 0 and image["windows"][index]["depth"] == 1)
    canvas = part.locator(".map .canvas canvas")
    box = canvas.bounding_box()
    x, y = (cell % columns + 0.5) / columns * box["width"], (cell // columns + 0.5) / rows * box["height"]
    canvas.click(position={"x": x, "y": y})
    chosen(cell)
    # By keys.
    part.locator(".map .canvas").focus()
    page.keyboard.press("ArrowRight")
    neighbour = min(cell % columns + 1, columns - 1) + cell // columns * columns
    if cells[neighbour] >= 0:
        chosen(neighbour)
    page.keyboard.press("PageUp")
    assert part.locator(".band").input_value() == "1"
    page.keyboard.press("PageDown")
    canvas.click(position={"x": x, "y": y})
    # Feature by feature.
    window = image["windows"][cells[cell]]
    slider = part.locator(".step")
    slider.focus()
    page.keyboard.press("Home")
    first = part.locator(".evaluated").text_content()
    value = np.frombuffer(base64.b64decode(window["values"]), "<f4")[0]
    sign = "<" if base64.b64decode(window["left"])[0] & 1 else "≥"
    shown = re.match(rf"Stage 1, weak classifier 1 of \d+: (\S+) {sign} ", first).group(1)
    assert float(shown) == pytest.approx(value, rel=1e-3, abs=1e-7)
    page.keyboard.press("End")
    last = part.locator(".evaluated").text_content()
    found, limit = re.search(r"Sum so far (\S+); the stage asks for (\S+)\.$", last).groups()
    assert float(found) - float(limit) == pytest.approx(window["margin"], abs=2e-3)


def test_the_map_shows_depths_where_they_are(opened, place):
    """The depths of the scan itself, at the window that gets deepest."""
    page = opened("inspection")
    words = page.locator(".told").text_content()
    w, h, x, y = map(int, re.search(r"Window of (\d+)×(\d+) px at \((\d+), (\d+)\)", words).groups())
    from vj.images import list_images, read_gray

    cascade = load(place / "model.xml")
    image = read_gray(list_images(place / "set")[0])
    places = [
        (round(c * one.stride * one.scale), round(r * one.stride * one.scale), round(one.window[0] * one.scale))
        for one in Detector(cascade).windows(image)
        for r, c in np.argwhere(one.depth == cascade.n_stages)
    ]
    assert any(abs(a - x) <= 1 and abs(b - y) <= 1 and abs(side - w) <= 1 for a, b, side in places)
    assert w == h


def test_arrow_keys_read_a_chart(opened):
    page = opened("training")
    chart = page.locator("[data-part=chart]").first
    chart.focus()
    page.keyboard.press("Home")
    _until(page, "document.querySelector('[data-part=chart] .u-value').textContent === '1'")
    page.keyboard.press("ArrowRight")
    _until(page, "document.querySelector('[data-part=chart] .u-value').textContent === '2'")
    assert "99 %" in chart.locator(".u-legend").text_content()


def test_the_page_of_a_run_loads_itself_again(browser, tmp_path):
    path = tmp_path / "report.html"
    running = _training("stage 3: mining", running=True)
    path.write_text(re.sub(r'(http-equiv="refresh" content=)"\d+"', r'\1"2"', running))
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.locator(".status").text_content() == "stage 3: mining"
    page.evaluate("scrollTo(0, 300)")
    path.write_text(_training("finished"))
    sync_api.expect(page.locator(".status")).to_have_text("finished")
    page.evaluate("window.kept = 1")
    page.wait_for_timeout(2500)
    # And no more.
    assert page.evaluate("window.kept") == 1
    assert page.evaluate("scrollY") == 300
    page.close()
