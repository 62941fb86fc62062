"""Run by the Python of an environment that has the wheel alone: no torch, no onnx, yet text."""

import importlib.util
import subprocess
import sys

import chargen_ort
from chargen_ort.models import DEMO_MODEL

for absent in ("torch", "onnx"):
    if importlib.util.find_spec(absent):
        sys.exit(f"{absent} is installed here; this environment is not bare")
if "site-packages" not in chargen_ort.__file__:
    sys.exit(f"chargen_ort comes from {chargen_ort.__file__}, not from the wheel")
text = chargen_ort.load(DEMO_MODEL).generate("hell", length=40, temperature=0.2, seed=7)
command = [sys.argv[1], "--start", "hell", "--length", "40", "--temperature", "0.2", "--seed", "7"]
printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
if not text.startswith("o world hello world") or printed != f"hell{text}\n":
    sys.exit(f"unexpected text: {text!r}, {printed!r}")
subprocess.run([sys.argv[1], "web", DEMO_MODEL, "bare.html"], check=True, capture_output=True)
print(f"without torch and onnx: hell{text}")
