"""Tables, on the screen as they come and in Markdown at the end."""

import os
import pathlib
import platform


class Report:
    """Everything that was said: printed at once, and kept for a file."""

    def __init__(self):
        self.text = []

    def title(self, text):
        print(f"\n{text}\n", flush=True)
        self.text += [f"## {text}", ""]

    def say(self, text):
        print(text, flush=True)
        self.text += [text, ""]

    def table(self, rows):
        """A table whose first row is its head; numbers stand to the right."""
        rows = [[str(cell) for cell in row] for row in rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip(), flush=True)
        line = lambda row: "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |"
        rule = "|---" * len(rows[0]) + "|"
        self.text += [line(rows[0]), rule, *map(line, rows[1:]), ""]

    def write(self, path):
        pathlib.Path(path).write_text("\n".join(self.text).rstrip() + "\n")


def processor():
    """Name of the processor, as the system has it."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def load_average():
    """How many threads wanted to run in the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def grouped(number):
    """A whole number with thin groups of three, as Troupe prints them."""
    return f"{number:,.0f}".replace(",", " ")


def gibibytes(size):
    return f"{size / (1 << 30):.2f} GiB"
