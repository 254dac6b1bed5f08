"""The two sides of the comparison as processes: Troupe's program, and a worker with PyTorch."""

import json
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent

# glibc gives large blocks back to the system and zeroes their pages at the next step. Kept, they
# make PyTorch a fifth faster, as an allocator of one's own does; so it gets them kept.
KEPT = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


class Refused(Exception):
    """A side does not do what it was asked; the text says why."""


def memory_limit():
    """Bytes that a worker may hold: two thirds of what is free now."""
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 * 2 // 3
    raise Refused("/proc/meminfo does not say how much memory is available")


class Torch:
    """A worker process with one configuration, which lives until `close`."""

    def __init__(self, about, threads):
        about = {"threads": threads, "memory_limit": memory_limit()} | about
        self.process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", json.dumps(about)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | KEPT | {"OMP_NUM_THREADS": str(threads)},
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def ask(self, limit, **request):
        """The answer to a request.

        Refused after `limit` seconds, or if the worker dies of it.
        """
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.answer(limit)
        if not line:
            raise Refused(self.last_words())
        return json.loads(line)

    def answer(self, limit):
        """A line of the worker; reads what it says beside it, so that it never waits for us."""
        said, line, deadline = b"", b"", time.monotonic() + limit
        out, err = self.process.stdout, self.process.stderr
        with selectors.DefaultSelector() as selector:
            for stream in (out, err):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                ready = selector.select(max(deadline - time.monotonic(), 0.0))
                if not ready:
                    self.close()
                    raise Refused(f"nothing after {limit:.0f} s")
                for key, _ in ready:
                    more = os.read(key.fd, 1 << 16)
                    if key.fileobj is out:
                        line += more
                        if not more:
                            self.said = said
                            return b""
                    elif more:
                        said += more
                    else:
                        selector.unregister(err)
        return line

    def last_words(self):
        """Why a worker died, in a line."""
        self.process.wait()
        rest = self.process.stderr.read() or b""
        lines = [line.strip() for line in (self.said + rest).decode(errors="replace").splitlines()]
        errors = [line for line in lines if "Error" in line and not line.startswith("File")]
        text = (errors or lines or [f"ended with {self.process.returncode}"])[-1]
        if any(word in text for word in ("allocate memory", "MemoryError", "out of memory")):
            return "out of memory"
        return text if len(text) <= 90 else text[:87] + "..."

    def close(self):
        """Ends the worker and the processes it compiles with."""
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                stream.close()
            except BrokenPipeError:
                pass


class Troupe:
    """Troupe's program."""

    def __init__(self, program):
        self.program = program

    def run(self, *arguments):
        """What it prints, line by line, and the bytes of its largest resident set."""
        command = [self.program, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        # What it writes fits the pipes.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out, err = process.communicate()
        if process.returncode != 0:
            lines = err.decode().strip().splitlines() or ["no word of why"]
            raise Refused(lines[0])
        return out.decode().splitlines(), 1024 * usage.ru_maxrss

    def bench(self, *arguments):
        """The last line of `troupe bench` as an object, with the memory of the process."""
        lines, memory = self.run("bench", *arguments, "--json")
        return json.loads(lines[-1]) | {"memory": memory}
