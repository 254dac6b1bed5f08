"""How long a run waits for copies to the host, by the speed of the bus: docs/offload.svg.

`python3 throttle.py --troupe PROGRAM --svg FILE` prints the table and draws it.
"""

import argparse
import json
import subprocess

SPEEDS = [40, 10, 5, 2.5, 1.2, 0.6, 0.3]
WIDTH, HEIGHT, LEFT, TOP = 640, 320, 60, 20


def ask(options, speed, *words):
    bus = f'cluster.bus="{speed}MB/s"'
    command = [options.troupe, "--json", *words, "--set", bus]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def figures(options, speed):
    """Seconds of a step, planned and measured, and those lost to the bus."""
    planned = ask(options, speed, "simulate", options.job)
    words = ["--steps", "1", "--sequences", "32", "--context", "256"]
    measured = ask(options, speed, "bench", options.job, *words)
    stalls = [rank["idle"].get("host link", 0.0) for rank in planned["ranks"]]
    actors = measured["copy_wait_seconds"] / options.actors
    return planned["program"], measured["step_seconds"], sum(stalls) / len(stalls), actors


def curve(points, most, colour, dash):
    x = lambda at: LEFT + at * (WIDTH - LEFT - 20) / (len(SPEEDS) - 1)
    y = lambda value: HEIGHT - 40 - value / most * (HEIGHT - 40 - TOP)
    path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in enumerate(points))
    dots = "".join(
        f'<circle cx="{x(at):.1f}" cy="{y(v):.1f}" r="3" fill="{colour}"/>'
        for at, v in enumerate(points)
    )
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
    return line + dots


def draw(rows, file):
    most = 1.05 * max(max(row[1:3]) for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for at in range(0, int(most) + 1, max(1, int(most / 6))):
        y = HEIGHT - 40 - at / most * (HEIGHT - 40 - TOP)
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{at} s</text>')
        parts.append(f'<path d="M{LEFT} {y:.0f}H{WIDTH - 20}" stroke="#ddd"/>')
    for at, row in enumerate(rows):
        x = LEFT + at * (WIDTH - LEFT - 20) / (len(SPEEDS) - 1)
        label = f'<text x="{x:.0f}" y="{HEIGHT - 20}" text-anchor="middle">{row[0]:g} MB/s</text>'
        parts.append(label)
    dashed = ' stroke-dasharray="5 4"'
    parts.append(curve([row[1] for row in rows], most, "#3465a4", dashed))
    parts.append(curve([row[2] for row in rows], most, "#3465a4", ""))
    parts.append(curve([row[3] for row in rows], most, "#cc4400", dashed))
    parts.append(curve([row[4] for row in rows], most, "#cc4400", ""))
    words = "a step (blue) and what it waits for the bus (orange); planned dashed, measured whole"
    parts.append(f'<text x="{LEFT + 10}" y="{TOP + 4}">{words}</text></svg>')
    with open(file, "w") as out:
        out.write("\n".join(parts) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--troupe", required=True)
    parser.add_argument("--job", default="k2-lab")
    parser.add_argument("--actors", type=int, default=8, help="compute actors of the plan")
    parser.add_argument("--svg")
    options = parser.parse_args()
    print("| bus, MB/s | step, s | waits for the bus, s |")
    print("|---|---|---|")
    rows = []
    for speed in SPEEDS:
        step, took, stall, waited = figures(options, speed)
        rows.append((speed, step, took, stall, waited))
        print(f"| {speed:g} | {step:.2f} / {took:.2f} | {stall:.2f} / {waited:.2f} |", flush=True)
    if options.svg:
        draw(rows, options.svg)


main()
