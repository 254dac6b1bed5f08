"""A process with PyTorch in it: does one thing as often as it is asked.

The first argument is a configuration in JSON; `kind` says of what. Then each line of the standard
input is a request, and each line of the standard output its answer, with the most memory that the
process has held so far. Between requests it sleeps, so that Troupe has the machine for itself.
"""

import json
import pathlib
import resource
import sys

sys.path.append(str(pathlib.Path(__file__).parent.parent / "reference"))

import torch


def started(about):
    """The thing that answers requests; its module is loaded only now."""
    if about["kind"] == "training":
        from training import Timed

        return Timed(about)
    if about["kind"] == "generation":
        from generation import Timed

        return Timed(about)
    from products import Timed

    return Timed(about)


def memory():
    """Bytes of the largest resident set of this process."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def limit_memory(size):
    """Makes a demand for too much memory an error here instead of the death of a neighbour."""
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def main():
    about = json.loads(sys.argv[1])
    if about["memory_limit"] is not None:
        limit_memory(about["memory_limit"])
    torch.set_num_threads(about["threads"])
    answers, sys.stdout = sys.stdout, sys.stderr
    thing = started(about)
    for line in sys.stdin:
        answer = {"memory": memory()} | thing.run(json.loads(line))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
