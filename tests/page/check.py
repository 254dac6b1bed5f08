"""Opens pages of `troupe viz` in headless Chromium and checks what only a browser can tell.

Also reads a trace with Perfetto's own messages. No error, no network, the text alternative, keys that move the view into the address, frame times
while panning, the contrast of every fill. Writes screenshots if a folder is given.

    python tests/page/check.py target/release/troupe [docs]

Chromium is the one that CHROMIUM names, or that of the system, or the one playwright installs.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from perfetto.protos.perfetto.trace import perfetto_trace_pb2
from playwright.sync_api import sync_playwright

TROUPE = sys.argv[1]
SHOTS = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
SIZE = {"width": 1280, "height": 800}


def troupe(*arguments):
    subprocess.run([TROUPE, *arguments], check=True)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """WCAG 2.2, relative luminance and contrast ratio."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def opened(browser, page, scheme="light", fragment=""):
    """A tab with the page; fails on any error and on any request but the page itself."""
    tab = browser.new_page(viewport=SIZE, color_scheme=scheme)
    wrong = []
    tab.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    tab.goto(page.as_uri() + fragment)
    tab.wait_for_timeout(300)
    assert not wrong, wrong
    return tab, wrong


def colours(tab):
    names = ["ground", "lane", "ink", "text", "dim", "pick", "path", *[f"fill{i}" for i in range(5)]]
    script = "names => names.map(n => getComputedStyle(document.documentElement).getPropertyValue('--' + n).trim())"
    return dict(zip(names, tab.evaluate(script, names)))


def check_contrast(tab, scheme):
    c = colours(tab)
    for fill in (f"fill{i}" for i in range(5)):
        for ground in ("ground", "lane"):
            assert contrast(c[fill], c[ground]) >= 3, (scheme, fill, ground)
        assert contrast(c["ink"], c[fill]) >= 4.5, (scheme, "letters in", fill)
    for text in ("text", "dim"):
        assert contrast(c[text], c["ground"]) >= 4.5, (scheme, text)
    least = min(contrast(c[f"fill{i}"], c["ground"]) for i in range(5))
    print(f"contrast, {scheme}: least of a fill {least:.1f}")


def check_keys(tab):
    tab.focus("#canvas")
    seen = set()
    for key in ["+", "ArrowRight", "n", "n", "]", "ArrowDown", "Enter", "-", "Home"]:
        tab.keyboard.press(key)
        tab.wait_for_timeout(140)
        seen.add(tab.evaluate("location.hash"))
    assert len(seen) >= 6, seen
    assert "box=" in tab.evaluate("location.hash"), "the pinned box is in the address"
    assert tab.inner_text("#status").startswith("rank "), tab.inner_text("#status")
    tab.keyboard.press("/")
    tab.keyboard.type("B s3 m7")
    tab.keyboard.press("Enter")
    tab.wait_for_timeout(140)
    assert tab.inner_text("#status").startswith("rank 3: B7"), tab.inner_text("#status")
    address = tab.evaluate("location.hash")
    tab.reload()
    tab.wait_for_timeout(200)
    assert tab.evaluate("location.hash") == address, "a link shows the same place"


def check_text(tab):
    tab.click("#tab-tables")
    tables = tab.inner_text("#tables")
    for part in ["Idle time by cause", "warm-up", "Work by kind", "Spans in view"]:
        assert part in tables, part
    assert tab.get_attribute("#canvas", "role") == "img"
    assert "% idle" in tab.get_attribute("#canvas", "aria-label")
    with tab.expect_download() as download:
        tab.click("#csv")
    lines = pathlib.Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("plan,rank,track"), lines[0]
    return len(lines) - 1


FRAMES = """async () => {
  const canvas = document.getElementById('canvas'), box = canvas.getBoundingClientRect(), times = [];
  const send = (type, x) => canvas.dispatchEvent(new PointerEvent(type,
    { clientX: x, clientY: box.top + 100, pointerId: 1, bubbles: true }));
  const frame = () => new Promise(requestAnimationFrame);
  canvas.setPointerCapture = () => {};
  send('pointerdown', box.left + 900);
  await frame();
  for (let n = 0; n < 90; n++) {
    send('pointermove', box.left + 900 - 6 * n);
    const before = performance.now();
    await frame();
    draw();
    times.push(performance.now() - before);
  }
  send('pointerup', box.left);
  times.sort((a, b) => a - b);
  const work = []; 
  for (let n = 0; n < 30; n++) { const before = performance.now(); draw(); work.push(performance.now() - before); }
  work.sort((a, b) => a - b);
  return [times[45], times[85], work[15]];
}"""


def check_frames(tab):
    first = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1")
    print(f"16 x 1,024: first paint after {first:.0f} ms")
    for name, zoom in [("whole step", 0), ("a thirtieth", 7), ("a five-hundredth", 12)]:
        tab.keyboard.press("Home")
        for _ in range(zoom):
            tab.keyboard.press("+")
        median, worst, work = tab.evaluate(FRAMES)
        print(f"16 x 1,024, {name}: frame {median:.1f} ms, 95 % {worst:.1f} ms, drawing {work:.1f} ms")
        assert work < 16.7, f"{name}: drawing takes {work:.1f} ms of a frame"


def check_trace(path):
    """Reads a trace with Perfetto's own messages."""
    troupe("viz", "--schedule", "ZbH1", "--cost", "comm=0.5", "-o", str(path))
    trace = perfetto_trace_pb2.Trace()
    trace.ParseFromString(path.read_bytes())
    events = [packet.track_event for packet in trace.packet if packet.HasField("track_event")]
    begun, ended = (sum(event.type == kind for event in events) for kind in (1, 2))
    # 4 ranks x 8 microbatches x F, B, W, and 3 boundaries x 8 microbatches x two ways.
    assert begun == ended == 4 * 8 * 3 + 3 * 8 * 2, (begun, ended)
    out = sorted(flow for event in events for flow in event.flow_ids)
    assert out and out == sorted(flow for event in events for flow in event.terminating_flow_ids)
    print(f"trace: {len(trace.packet)} packets, {len(out)} flows, as Perfetto reads them")


def main():
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        folder = pathlib.Path(folder)
        small, middle, large = (folder / name for name in ("small.html", "middle.html", "large.html"))
        troupe("viz", "--schedule", "OneFOneB", "--compare", "ZbH1", "-o", str(small))
        comm = ("--cost", "F=1,I=1.03,W=0.97,comm=0.1")
        sized = ("--schedule", "ZbH1", "--pp", "16", *comm, "--microbatches")
        troupe("viz", *sized, "128", "-o", str(middle))
        troupe("viz", *sized, "1024", "-o", str(large))
        for page, most in [(middle, 300_000), (large, 2_000_000)]:
            size = page.stat().st_size
            print(f"{page.name}: {size:,} bytes")
            assert size <= most, (page.name, size)
        check_trace(folder / "trace.perfetto")
        executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            tab, wrong = opened(browser, small, scheme)
            check_contrast(tab, scheme)
            if SHOTS:
                tab.screenshot(path=SHOTS / f"viz-{scheme}.png")
            tab.close()
        tab, wrong = opened(browser, small)
        check_keys(tab)
        assert check_text(tab) == 4 * 8 * 2 + 4 * 8 * 3
        assert not wrong, wrong
        tab.close()
        tab, wrong = opened(browser, large)
        check_frames(tab)
        assert not wrong, wrong
        browser.close()
    print("pages are as they should be")


main()
