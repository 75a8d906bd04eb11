"""What a student sees in a real browser (`make test-browser`): JupyterLab, the slider, the demo, the report.

Needs the extra `browser` and Chromium on the PATH (Debian: `apt install chromium`); skipped with a reason elsewhere,
but not in CI. What was on the screen is in `runs/screenshots`, to be looked at.
"""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from contextlib import suppress

import pytest

from tests.test_notebooks import ROOT, clone_project, environment_of
from z1lib.engines.serving import free_port
from z1lib.pages.demo import MAX_TOKENS

playwright = pytest.importorskip("playwright.sync_api", reason="`pip install -e '.[browser]'` brings playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ, reason="no Chromium on the PATH: `apt install chromium`"
    ),
]


def start(command: list[str], url: str, **options):
    """A server that answers, as a process to kill."""
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )
    for _ in range(120):
        try:
            urllib.request.urlopen(url, timeout=2)
            return process
        except OSError:
            assert process.poll() is None, f"{command[0]} ended"
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> str:
    """JupyterLab over a clone in which nothing was run: the notebooks open from the committed artifacts."""
    folder = clone_project(tmp_path_factory.mktemp("lab") / "clone")
    shutil.copytree(ROOT / "figures", folder / "figures")
    settings = tmp_path_factory.mktemp("settings")
    tracker = settings / "@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text(json.dumps({"windowingMode": "none"}))  # else cells out of sight are not in the page
    port = free_port()
    command = [".venv/bin/jupyter", "lab", "--no-browser", f"--port={port}"]
    command += ["--IdentityProvider.token=", "--allow-root", "--ServerApp.open_browser=False"]
    own = {"JUPYTERLAB_SETTINGS_DIR": str(settings), "JUPYTERLAB_WORKSPACES_DIR": str(settings / "workspaces")}
    environment = {**environment_of(folder), **own}
    process = start(command, f"http://127.0.0.1:{port}/api", cwd=folder, env=environment)
    yield f"http://127.0.0.1:{port}/lab/tree/notebooks"
    os.killpg(process.pid, 9)


def look(page, name: str) -> None:
    folder = ROOT / "runs" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)


PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(prompt => prompt.innerText.trim())"


def run_all(page, url: str, cells: int) -> None:
    """Open a notebook, run all its cells, wait until the last has run."""
    page.goto(f"{url}?reset")  # else JupyterLab opens the notebooks of the last test again
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_selector("[data-status=idle]", timeout=60_000)
    done = f"() => {PROMPTS}.filter(text => /^\\[\\d+\\]:$/.test(text)).length >= "
    for _ in range(3):  # a kernel that has just come up may lose the first: cells wait, and then do not
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        with suppress(playwright.TimeoutError):
            page.wait_for_function(f"{done}1", timeout=30_000)
            break
    try:
        page.wait_for_function(f"{done}{cells}", timeout=240_000)
    except playwright.TimeoutError:
        look(page, "stuck")
        raise


def code_cells(name: str) -> int:
    """How many code cells show their input: the set-up is folded."""
    cells = json.loads((ROOT / "notebooks" / name).read_text())["cells"]
    shown = [cell for cell in cells if not cell["metadata"].get("jupyter", {}).get("source_hidden")]
    return sum(cell["cell_type"] == "code" for cell in shown)


def test_jupyterlab_runs_the_analysis_and_shows_its_figures(browser, lab):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    run_all(page, f"{lab}/04_analysis.ipynb", code_cells("04_analysis.ipynb"))
    assert page.locator(".jp-OutputArea-output img").count() >= 10
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert "Not made here yet: completions.jsonl" in page.locator(".jp-Notebook").inner_text()
    look(page, "analysis")
    page.close()


def move(page, frame) -> None:
    """The slider moves and what is shown changes."""
    before = frame.locator("#page").inner_text()
    handle = frame.locator("#window")
    handle.focus()
    for _ in range(8):
        handle.press("ArrowRight")
    assert frame.locator("#page").inner_text() != before
    frame.locator("#problem").select_option(index=1)
    assert frame.locator("#value").inner_text()


def test_the_slider_moves_and_the_text_changes(browser, lab):
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    run_all(page, f"{lab}/03_windowed_inference.ipynb", code_cells("03_windowed_inference.ipynb"))
    page.locator("iframe").last.scroll_into_view_if_needed()
    move(page, page.frame_locator("iframe").last)
    look(page, "slider")
    page.close()


@pytest.mark.parametrize("width", [390, 1366])
def test_the_slider_moves_on_the_site_where_no_kernel_is(browser, tmp_path, width):
    """As `make site` has it: notebook 03 as a page, from the committed artifacts."""
    folder = clone_project(tmp_path / "clone")
    shutil.copytree(ROOT / "figures", folder / "figures")
    notebook = "notebooks/03_windowed_inference.ipynb"
    shell = f".venv/bin/papermill {notebook} out.ipynb --cwd notebooks -k python3 && "
    shell += ".venv/bin/jupyter nbconvert --to html out.ipynb"
    subprocess.run(shell, shell=True, cwd=folder, check=True, capture_output=True, env=environment_of(folder))
    page = browser.new_page(viewport={"width": width, "height": 768})
    page.goto((folder / "out.html").as_uri())
    move(page, page.frame_locator("iframe").last)
    look(page, f"site-{width}")
    page.close()


@pytest.fixture(scope="module")
def demo(tiny_model) -> str:
    port = free_port()
    command = [str(ROOT / ".venv/bin/python"), "-m", "z1lib.pages.demo", "--model", tiny_model, "--port", str(port)]
    process = start(command, f"http://127.0.0.1:{port}")
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, 9)


# Every text that the right page has shown.
NOTE_TEXTS = """() => {
    const page = document.querySelector('#page-1');
    window.texts = [];
    new MutationObserver(() => window.texts.push(page.innerText)).observe(
        page, {subtree: true, childList: true, characterData: true});
}"""


def test_the_demo_streams_and_two_sessions_keep_their_own_text(browser, demo):
    pages = [browser.new_context().new_page() for _ in range(2)]
    hints = ["FIRST HINT", "SECOND HINT"]
    for page, hint in zip(pages, hints):
        page.goto(demo)
        page.wait_for_selector("#page-1", state="attached")
        page.get_by_label("hint").fill(f"\n\n{hint}:\n\n")
        page.evaluate(NOTE_TEXTS)
    for page in pages:
        page.get_by_role("button", name="think").click()
    for page, hint in zip(pages, hints):
        playwright.expect(page.locator("#page-0")).to_contain_text(hint, timeout=60_000)
        playwright.expect(page.locator("#page-1")).to_contain_text(f"= {MAX_TOKENS} tokens", timeout=60_000)
    for i, (page, hint, other) in enumerate(zip(pages, hints, reversed(hints))):  # both are done: all there ever was
        texts = page.evaluate("window.texts")
        counts = [int(found[1]) for text in texts if (found := re.search(r"(\d+) thinking", text))]
        assert len(set(counts)) > 3  # it grew before the eyes
        assert counts == sorted(counts)
        assert not any(other in text for text in texts)
        assert other not in page.locator("#page-0").inner_text()
        assert hint not in page.locator("#page-1").inner_text()  # left alone: no hint
        look(page, f"demo-{i}")


@pytest.mark.parametrize("width", [390, 1366])
def test_the_demo_fits_the_page_and_both_answers_stand_on_one_screen(browser, demo, width):
    page = browser.new_page(viewport={"width": width, "height": 768})
    page.goto(demo)
    page.get_by_role("button", name="think").click()
    for name in ("#page-0", "#page-1"):
        playwright.expect(page.locator(name)).to_contain_text("the program prints 19", timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1366:
        ends = [
            page.locator(name).evaluate("one => one.getBoundingClientRect().bottom") for name in ("#page-0", "#page-1")
        ]
        assert max(ends) <= 768
    look(page, f"demo-{width}")
    page.close()


# How many lines each cell with a number takes.
LINES = """() => [...document.querySelectorAll('td.number')].map(cell => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size;
})"""


@pytest.mark.parametrize("width", [1366, 390])
def test_the_report_fits_the_page_and_needs_nothing_else(browser, tmp_path, width):
    folder = clone_project(tmp_path / "clone")
    shutil.copytree(ROOT / "figures", folder / "figures")
    shell = ".venv/bin/papermill notebooks/04_analysis.ipynb out.ipynb --cwd notebooks -k python3 && "
    shell += ".venv/bin/python -m z1lib.pages.report out.ipynb report.html"
    subprocess.run(shell, shell=True, cwd=folder, check=True, capture_output=True, env=environment_of(folder))
    page = browser.new_page(viewport={"width": width, "height": 768})
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("requestfailed", lambda request: trouble.append(request.url[:100]))
    page.goto((folder / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) >= 10
    assert min(widths) > 0
    assert trouble == []
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    lines = page.evaluate(LINES)
    assert max(lines) == 1, f"{sum(line > 1 for line in lines)} of {len(lines)} numbers break over lines"
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = false)")
    assert page.locator("img").first.evaluate("image => image.getBoundingClientRect().top") < 2 * 768
    look(page, f"report-{width}")
