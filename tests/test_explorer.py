"""explorer.html holds what it says, in one file, and works in a real browser (where selenium and chromium are)."""
import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import EXPRESSIONS, draw_small_images
from data import figures
from data.faces import checked
from data.figures import COLOURS
from metric_vae import explorer, statistics, trained
from metric_vae import train as vae
from metric_vae.model import ARCHITECTURES, VAE
from metric_vae.scores import latents_of

CPU = torch.device("cpu")
HOSTILE = ('<img src=x onerror="hacked=1">', "</script><b>", "Überraschung & 'Co'", "{{data}}", "日本", "\u2028", "g")
pytestmark = pytest.mark.usefixtures("one_thread")


def small_faces(colour=False, labels=np.arange(70) % 7, classes=EXPRESSIONS):
    """70 faces of 16x16 pixels of 10 people; 0..3 train, 4 validates, the others, with 35 faces, test."""
    images = draw_small_images()
    if colour:
        images = np.stack([images, np.roll(images, 1, 0), np.roll(images, 30, 0)], -1)
    people = np.arange(70) // 7
    split = np.array([0] * 4 + [1] + [2] * 5)[people]
    return checked(images, labels, people, split, "small", "small faces", seed=0, classes=classes)


def write(folder, faces, names=vae.MODELS, last=True, given=1.):
    """The page of these faces in VAEs that are not trained, and the Latents in it; given: the share of distances."""
    torch.manual_seed(0)
    rows = faces.rows("test")
    models = {name: ARCHITECTURES["light"](16, 8, 4, faces.channels).eval().requires_grad_(False) for name in names}
    for model in models.values():                               # so that faces differ
        model.mean_face.face += .5
        model.encoder.metric[-1].weight *= 4
        for layer in (model.decoder[0].rest, *model.decoder[3::2]):
            layer.weight *= 2.2
        nn.init.normal_(model.decoder[0].metric[-1].weight)
    summaries = [trained.summarize(model, name, faces, None, faces.rows("train"), folder, 0, CPU)
                 for name, model in models.items()]
    latents = [latents_of(name, model, faces, rows, CPU, summary, "metric")
               for (name, model), summary in zip(models.items(), summaries)]
    rng = np.random.default_rng(0)
    points = rng.normal(size=(len(rows), 7))
    d = np.where(rng.random((len(rows),) * 2) < given, statistics.euclidean(points), np.nan) if names else None
    explorer.write(folder / "explorer.html", "a title", faces, rows, latents, models, d, "d_D",
                   points if last else None)
    return folder / "explorer.html", latents


def content(path):
    """The data in a page."""
    text = path.read_text("utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def unpacked(matrix):
    """What packed() packed, as explorer.js reads it."""
    whole, scale = (np.frombuffer(base64.b64decode(matrix[name]), kind) for name, kind in (
        ("values", f"<i{matrix['bits'] // 8}"), ("scale", "<f4")))
    whole = whole.reshape(-1, matrix["columns"])
    return np.where(whole == np.iinfo(whole.dtype).min, np.nan, whole * scale[:, None])


def tiles(sheet, count):
    """The first faces of a sheet."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet["uri"].partition(",")[2]))))
    side, across = sheet["side"], sheet["across"]
    return np.stack([pixels[k // across * side:, k % across * side:][:side, :side] for k in range(count)])


# --- the file

@pytest.mark.parametrize("colour", [False, True])
def test_the_page_holds_the_faces_their_maps_distances_and_samples(tmp_path, colour):
    faces = small_faces(colour)
    path, (without, with_) = write(tmp_path, faces)
    page, rows = content(path), faces.rows("test")
    assert page["rows"] == rows.tolist() and page["labels"] == faces.labels[rows].tolist()
    shown = tiles(page["faces"], len(rows)).astype(int)
    assert shown.shape == (35, 16, 16, 3)[:3 + colour]
    assert np.abs(shown - faces.images[rows]).mean() < 4 < np.abs(shown - np.roll(faces.images[rows], 1, 0)).mean()
    assert [one["name"] for one in page["classes"]] == list(EXPRESSIONS)
    assert [one["colour"] for one in page["classes"]] == [COLOURS[name] for name in EXPRESSIONS]
    points = figures.tsne(with_.mu[:, :4])
    assert "4 metric dimensions" in page["maps"][1]["title"] and len(page["maps"]) == 4
    assert np.corrcoef(unpacked(page["maps"][1]["points"])[0], points[:, 0])[0, 1] == pytest.approx(1, abs=1e-4)
    model, d = page["models"][1], unpacked(page["given"])
    e = statistics.euclidean(unpacked(model["mu"])[:, :model["dims"]])
    i, j = np.triu_indices(35, 1)
    assert e == pytest.approx(with_.distances(), abs=1e-3) and d.shape == (35, 35)
    assert model["scale"] == pytest.approx(statistics.best_scale(e[i, j], d[i, j], np.ones(len(i))), rel=1e-3)
    assert model["edit_dims"] == [0, 4] and page["models"][0]["edit_dims"] == [0, 8]
    assert unpacked(model["means"]) == pytest.approx(with_.means, abs=1e-3)
    samples = tiles(model["samples"]["faces"], 7 * explorer.SAMPLES) / 255
    expected = np.concatenate([with_.samples(explorer.SAMPLES, "density", of) for of in range(7)])
    assert np.abs(samples - expected).mean() < .03 and model["samples"]["of"] == list(EXPRESSIONS)


def test_the_page_loads_nothing_and_its_names_are_escaped(tmp_path):
    path, _ = write(tmp_path, small_faces(classes=HOSTILE))
    text = path.read_text("utf-8")
    assert not re.search(r"https?://|@import|url\(", text) and "default-src 'none'" in text
    assert re.findall(r'(?:src|href)="([^"]*)"', text.replace("<img src=x", "")) == ["data:,"]
    assert text.count("</script>") == 2 and "<img" not in text and "<b>" not in text
    assert content(path)["names"] == list(HOSTILE)
    assert len(text.encode()) < explorer.LIMIT


def test_numbers_come_back_from_their_packing():
    matrix = np.random.default_rng(0).normal(size=(5, 300)) * np.array([1e-6, 1, 0, 30, 1e4])[:, None]
    for bits in (8, 16):
        largest = np.abs(matrix).max(1, keepdims=True)
        assert (np.abs(unpacked(explorer.packed(matrix, bits)) - matrix) <= largest / 2 ** bits * 1.02).all()
    matrix[1, 3], matrix[3] = np.nan, np.nan
    assert (np.isnan(unpacked(explorer.packed(matrix))) == np.isnan(matrix)).all()


def test_the_worst_pairs_are_those_of_a_slow_search():
    pairs = np.stack(np.triu_indices(9, 1), 1)[3:]
    errors = np.random.default_rng(0).random(len(pairs))
    left, expected = list(zip(pairs.tolist(), errors)), []
    while left:
        expected.append(max(left, key=lambda entry: entry[1])[0])
        left = [entry for entry in left if not set(entry[0]) & set(expected[-1])]
    assert explorer.worst_pairs(pairs, errors).tolist() == expected
    assert explorer.worst_pairs(pairs, errors, 2).tolist() == expected[:2]


def test_the_page_keeps_to_its_size_and_number_of_faces(tmp_path, monkeypatch):
    path, _ = write(tmp_path, small_faces())
    monkeypatch.setattr(explorer, "LIMIT", path.stat().st_size - 1000)
    smaller, _ = write(tmp_path, small_faces())
    assert smaller.stat().st_size <= explorer.LIMIT
    monkeypatch.setattr(explorer, "FACES", 14)
    page = content(write(tmp_path, small_faces())[0])
    assert len(set(page["labels"])) == 7 and unpacked(page["given"]).shape == (14, 14) == (len(page["rows"]),) * 2
    large = explorer.sheet(np.random.default_rng(0).random((3, 128, 128)), 90)
    assert large["side"] == explorer.SIDE and tiles(large, 3).shape == (3, 96, 96)


def test_a_decoder_that_cannot_go_along_is_rendered_beforehand(tmp_path, monkeypatch):
    assert explorer.decoder_of(ARCHITECTURES["original"](16, 8)) is None        # batch norm
    assert explorer.decoder_of(ARCHITECTURES["light"](16, 8)) is not None
    assert explorer.decoder_of(VAE(nn.Flatten(), nn.Linear(8, 256))) is None    # a user's own
    monkeypatch.setattr(explorer, "DECODERS", 1000)
    monkeypatch.setattr(explorer, "EDITED", 2 * 7 * 16 ** 2 * 10)
    path, (_, with_) = write(tmp_path, small_faces())
    model = content(path)["models"][1]
    assert model["decoder"] is None and len(model["edited"]) == 10
    assert np.abs(tiles(model["reconstructions"], 35) / 255 - with_.decode(with_.mu)).mean() < .02
    edits = tiles(model["edits"], 70).reshape(10, 7, 16, 16) / 255
    assert np.abs(edits[:, 3] - with_.edit(np.array(model["edited"]), 3)).mean() < .02


def test_a_page_of_less_has_what_there_is(tmp_path):
    page = content(write(tmp_path, small_faces(), names=())[0])
    assert page["models"] == [] and page["given"] is None and len(page["maps"]) == 1
    page = content(write(tmp_path, small_faces(labels=np.full(70, -1)), names=["dist_reg"], last=False)[0])
    model, = page["models"]
    assert page["classes"] == [] and model["known"] == [] and model["samples"]["of"] is None and len(page["maps"]) == 2


def test_marks_stand_out_from_the_ground_in_dark_mode():
    def luminance(colour):
        parts = [int(colour[k:k + 2], 16) / 255 for k in (1, 3, 5)]
        return sum(f * (p / 12.92 if p <= .04045 else ((p + .055) / 1.055) ** 2.4)
                   for f, p in zip((.2126, .7152, .0722), parts))
    for colour in COLOURS.values():
        assert (luminance(explorer.lightened(colour)) + .05) / (luminance(explorer.DARK) + .05) >= explorer.CONTRAST
    assert explorer.lightened(COLOURS["happy"]) == COLOURS["happy"]
    assert explorer.DARK.lower() in (explorer.PAGE / "explorer.css").read_text()


def test_a_map_is_computed_once(monkeypatch):
    points = np.random.default_rng(5).normal(size=(30, 3))
    first = figures.tsne(points)
    hits = figures._tsne.cache_info().hits
    assert (figures.tsne(points.astype(np.float32)) == first).all() and figures._tsne.cache_info().hits == hits + 1
    assert (figures.tsne(points, perplexity=5) != first).any()


# --- in a browser

@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium whose console is kept."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install selenium")
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


class Page:
    """A page that is open in a browser, and what a reader does with it."""

    def __init__(self, browser, path, width=1400, dark=False):
        self.browser, self.run = browser, browser.execute_script
        command = browser.execute_cdp_cmd
        command("Emulation.setDeviceMetricsOverride", dict(width=width, height=900, deviceScaleFactor=1, mobile=False))
        command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme",
                                                             "value": "dark" if dark else "light"}]})
        browser.get_log("browser")
        browser.get(path.as_uri())
        self.wait("document.documentElement.dataset.ready")

    def wait(self, condition):
        """Until a JavaScript expression holds; its value."""
        from selenium.webdriver.support.ui import WebDriverWait
        return WebDriverWait(self.browser, 10, .02).until(lambda _: self.run(f"return {condition}"), condition)

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def press(self, selector, *keys):
        self.find(selector).send_keys(*keys)

    def point_at(self, selector, x, y, click=False):
        """Move the pointer to x, y pixels from the upper left corner of an element."""
        from selenium.webdriver.common.action_chains import ActionChains
        element = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        width, height = self.run("return [arguments[0].clientWidth, arguments[0].clientHeight]", element)
        chain = ActionChains(self.browser, 0).move_to_element_with_offset(element, x - width / 2, y - height / 2)
        (chain.click() if click else chain).perform()

    def pixels(self, selector):
        """The pixels of a canvas, (H, W, 3), once nothing is waiting to be decoded."""
        self.wait("!waiting.size")
        width, values = self.run("""const canvas = document.querySelector(arguments[0]);
            return [canvas.width, Array.from(canvas.getContext("2d").getImageData(
                0, 0, canvas.width, canvas.height).data)]""", selector)
        return np.reshape(values, (-1, width, 4))[..., :3] / 255

    def place(self, map_number, face):
        """Where a face stands in a map, in pixels."""
        return self.run("""const canvas = document.getElementById(`map-${arguments[0]}`), k = arguments[1];
            const {points} = data.maps[document.getElementById(`which-${arguments[0]}`).value];
            return [14 + points[k] * (canvas.clientWidth - 28), canvas.clientHeight - 14 - points[count + k]
                    * (canvas.clientHeight - 28)]""", map_number, face)

    def close(self):
        """No error in the console, and nothing to scroll to the side."""
        assert self.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert [line for line in self.browser.get_log("browser") if line["level"] == "SEVERE"] == []


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A page in colour, and the Latents in it."""
    folder = tmp_path_factory.mktemp("colour")
    return write(folder, small_faces(colour=True))


def test_the_pointer_shows_a_face_and_a_click_chooses_it(chromium, made):
    page = Page(chromium, made[0])
    page.point_at("#map-2", *page.place(2, 20))
    page.wait("!document.getElementById('tip').hidden")
    near, = page.run("return state.over")
    assert np.hypot(*np.subtract(page.place(2, near), page.place(2, 20))) < 3
    assert f"Face {near + 1} of 35" in page.text("#tip")
    page.point_at("#map-2", *page.place(2, 20), click=True)
    assert page.run("return state.face") == near and f"Face {near + 1}" in page.text("#said")
    assert np.abs(page.pixels("#pictures canvas") - content_faces(made)[near]).max() < .02
    page.close()


def content_faces(made):
    return tiles(content(made[0])["faces"], 35) / 255


def test_the_pages_decoder_reconstructs_edits_and_interpolates_as_torch_does(chromium, made):
    page, (_, latents) = Page(chromium, made[0]), made[1]
    page.run("choose(8, 20)")
    last = "#pictures figure:last-child canvas"
    assert page.pixels(last) == pytest.approx(latents.decode(latents.mu[[8]])[0], abs=.012)
    to_happy = f'canvas[aria-label="Edited to happy, {explorer.NAMES["dist_reg"]}"]'
    assert page.pixels(to_happy) == pytest.approx(latents.edit(np.array([8]), 3)[0], abs=.012)
    assert np.abs(page.pixels(to_happy) - page.pixels(last)).max() > .1
    page.run("const s = document.getElementById('amount'); s.value = 1.5; s.dispatchEvent(new Event('input'))")
    z = latents.mu[8].copy()
    z[:4] += 1.5 * (latents.means[3] - latents.means[latents.labels[8]])[:4]
    assert page.pixels(to_happy) == pytest.approx(latents.decode(z[None])[0], abs=.012)
    page.run("const s = document.getElementById('way'); s.value = 1; s.dispatchEvent(new Event('input'))")
    assert page.pixels("#between figure:last-child canvas") == pytest.approx(latents.decode(latents.mu[[20]])[0],
                                                                             abs=.012)
    assert "100 %" in page.text("#two")
    page.close()


def test_the_keyboard_moves_between_faces_keeps_one_and_moves_the_sliders(chromium, made):
    from selenium.webdriver.common.keys import Keys
    page = Page(chromium, made[0])
    x, y = page.place(1, 0)
    page.press("#map-1", Keys.ENTER, *[Keys.ARROW_RIGHT if x < 200 else Keys.ARROW_LEFT])
    face = page.run("return state.face")
    assert face != 0 and page.run("return state.kept") == 0
    assert (page.place(1, face)[0] > x) == (x < 200) and f"Face {face + 1}" in page.text("#said")
    page.press("#amount", Keys.ARROW_RIGHT)
    assert page.text("#amount-is") == "1.05"
    names = page.run("""return [...document.querySelectorAll("button, canvas[tabindex], input, select")].map((e) =>
        e.getAttribute("aria-label") || e.textContent || e.labels?.[0]?.textContent || "")""")
    assert len(names) > 60 and all(name.strip() for name in names)
    page.close()


def test_a_class_that_is_switched_off_leaves_the_maps(chromium, made):
    page = Page(chromium, made[0])
    sad = next(k for k, label in enumerate(content(made[0])["labels"]) if label == 4)
    picture = lambda: page.run("return document.getElementById('map-2').toDataURL()")
    before = picture()
    page.find("#legend button:nth-child(5)").click()
    assert page.find("#legend button:nth-child(5)").get_attribute("aria-pressed") == "false"
    assert picture() != before
    page.point_at("#map-2", *page.place(2, sad))
    assert sad not in page.run("return state.over")
    page.find("#legend button:nth-child(5)").click()
    page.point_at("#map-2", 1, 1)
    page.wait("!planned")
    assert picture() == before
    page.close()


def test_a_point_of_the_shepard_diagram_and_a_worst_pair_open_their_two_faces(chromium, made):
    page, of = Page(chromium, made[0]), content(made[0])["models"][1]
    i, j = of["worst"][2]
    page.find("#shepard > :nth-child(2) li:nth-child(3) button").click()
    assert page.run("return [state.face, state.kept]") == [i, j]
    d, e = unpacked(content(made[0])["given"])[i, j], of["scale"] * made[1][1].distances()[i, j]
    values = page.run("return [...document.querySelectorAll('#pair-distances dd')].map((e) => Number(e.textContent))")
    assert values[0] == pytest.approx(d, rel=.01) and values[2] == pytest.approx(e, rel=.01)
    page.point_at("#shepard > :nth-child(2) .plot", 200, 200, click=True)
    if page.run("return state.pair") < 0:                       # nothing near: the keyboard finds one
        page.press("#shepard > :nth-child(2) .plot", "\ue014")
    pair = page.run("return state.pair")
    assert page.run("return [state.face, state.kept]") == page.run(f"return data.pairs[{pair}]")
    page.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1400])
def test_every_text_can_be_read_and_nothing_overflows(chromium, made, width, dark):
    page = Page(chromium, made[0], width, dark)
    found = page.run("""
        const luminance = (rgb) => rgb.slice(0, 3).map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92
          : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], .05);
        const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
        const ground = (e) => { const c = rgb(getComputedStyle(e).backgroundColor);
          return c.length < 4 || c[3] ? c : ground(e.parentElement); };
        return [...document.querySelectorAll("main *, header *")].filter((e) => e.checkVisibility()
          && [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())).map((e) => {
          const [a, b] = [luminance(rgb(getComputedStyle(e).color)), luminance(ground(e))];
          return [Math.max(a, b) / Math.min(a, b), e.textContent]; })""")
    assert len(found) > 50 and min(found)[0] >= 4.5, min(found)
    assert page.run("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(16, 19, 23)" if dark else "rgb(244, 245, 247)")
    page.close()


@pytest.mark.parametrize("options", [
    dict(faces=dict(classes=HOSTILE)), dict(faces=dict(labels=np.full(70, -1)), last=False), dict(names=()),
    dict(names=["dist_reg"]), dict(given=.3), dict(given=0.), dict(decoders=1000)],
    ids=["hostile names", "unlabelled", "classifier alone", "one VAE", "few distances", "no distances",
         "rendered beforehand"])
def test_pages_of_other_runs_work(chromium, tmp_path, monkeypatch, options):
    options = dict(options)
    monkeypatch.setattr(explorer, "DECODERS", options.pop("decoders", explorer.DECODERS))
    path, _ = write(tmp_path, small_faces(**options.pop("faces", {})), **options)
    page = Page(chromium, path)
    page.run("choose(3, 5)")
    page.point_at("#map-1", 200, 200)
    assert "Face 4 of 35" in page.text("#said") and page.run("return typeof hacked") == "undefined"
    assert page.run("return document.querySelectorAll('b, main img').length") == 0
    if explorer.DECODERS == 1000:
        k = content(path)["models"][0]["edited"][0]
        page.run(f"choose({k})")
        assert page.run("return document.querySelectorAll('#edited canvas').length") == 12
    page.close()
