"""Cold start: time from a started interpreter to the first identification, that of importing the runtime apart.

    python benchmarks/cold_start.py MODEL.onnx [GALLERY] [--runs 5]

Each run is its own process. Without GALLERY one image is enrolled first. Medians of processor and wall-clock time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

PROGRAM = """
import json, sys, time
start = time.process_time(), time.perf_counter()
import {module}
imported = time.process_time(), time.perf_counter()
import numpy as np
from unalike import Recogniser
recognizer = Recogniser.load(sys.argv[1], sys.argv[2] or None, runtime=sys.argv[3], precision="fp32")
image = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)
if not sys.argv[2]:
    recognizer.enrol([image], "a")
recognizer.identify(image)
end = time.process_time(), time.perf_counter()
print(json.dumps([imported[0] - start[0], imported[1] - start[1], end[0] - imported[0], end[1] - imported[1]]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("gallery", nargs="?", default="")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    if options.model is None:
        print("skipped: no model (give MODEL.onnx)")
        return
    for module, runtime in (("onnxruntime", "onnxruntime"), ("openvino", "openvino")):
        rows = []
        for _ in range(options.runs):
            command = [sys.executable, "-c", PROGRAM.format(module=module), options.model, options.gallery, runtime]
            process = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(process.stdout.splitlines()[-1]))
        cpu, clock, more_cpu, more_clock = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"{runtime}: import {cpu:.2f} s processor, {clock:.2f} s clock; to the first answer {more_cpu:.2f} s, {more_clock:.2f} s more"
        )


if __name__ == "__main__":
    main()
