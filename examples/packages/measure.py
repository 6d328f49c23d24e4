"""What six packages take on disk and in time, with their framework and on cylstm.

    python measure.py make FOLDER CYLSTM [NAMES]  # two environments each; CYLSTM: what pip installs
    python measure.py run FOLDER [NAMES]          # the table, and how far the answers are apart;
                                                  # NAME=WAY for a part of it

An environment "before" is what pip installs of the package; "after" has the package, what it needs
but for its framework, and cylstm. Every figure is of one CPU. The time to the first answer is that
of a fresh process from the first import, its median of five.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

TIMES, SECONDS = 5, 2

# What "before" installs beside the package, and "after" beside package and cylstm.
PACKAGES = {
    "asmscan-bilstm": (["tensorflow==2.14.1"], ["progress", "h5py"]),
    "arabic-diacritizer": (["torch==2.13.0"], ["click"]),
    "Resemblyzer": (["torch==2.13.0", "setuptools<81"], ["librosa", "webrtcvad", "setuptools<81"]),
    "dksplit": ([], []),
    "silero-vad": (["torch==2.13.0", "onnxruntime"], ["packaging"]),
    "g2pM": (["numpy"], []),
}


# The packages as they are: each imports, then yields what answers, and what it is asked ----------


def asmscan_bilstm():
    from asmscan.bilstm import BiLSTM

    yield
    yield BiLSTM().predict


def arabic_diacritizer():
    from diacritize import Diacritizer

    yield
    yield Diacritizer.from_pretrained(no_cache=True).diacritize


def resemblyzer():
    from resemblyzer import VoiceEncoder

    yield
    yield VoiceEncoder("cpu", verbose=False).embed_utterance


def dksplit():
    from dksplit import Splitter

    yield
    yield Splitter(num_threads=1).split_batch


def silero_vad():
    from silero_vad import get_speech_timestamps, load_silero_vad

    yield
    model = load_silero_vad()
    yield lambda audio: get_speech_timestamps(audio, model)


def silero_vad_onnx():
    from silero_vad import get_speech_timestamps_sequence, load_silero_vad

    yield
    model = load_silero_vad(sequence=True)
    yield lambda audio: get_speech_timestamps_sequence(audio, model)


def g2pm():
    from g2pM import G2pM

    yield
    yield G2pM()


def inputs_of(name):
    """What is asked, a call each; the unit of throughput; and how many of it there are."""
    import samples

    if name == "asmscan-bilstm":
        return [samples.proteins(20)], "proteins", 20
    if name == "dksplit":
        return [samples.names(1000)], "names", 1000
    if name == "arabic-diacritizer":
        return samples.ARABIC, "sentences", len(samples.ARABIC)
    if name == "g2pM":
        return samples.CHINESE, "sentences", len(samples.CHINESE)
    if name == "Resemblyzer":
        return [samples.speech(10, voice) for voice in range(4)], "s of sound", 40
    return [samples.speech(30, voice) for voice in range(4)], "s of sound", 120


def first_of(name, asked):
    """The first question, a small one."""
    return asked[0][:1] if isinstance(asked[0], list) else asked[0]


# One process -------------------------------------------------------------------------------------


def on_cylstm(page, loader="load"):
    from importlib import import_module

    module = import_module(page)
    yield
    yield getattr(module, loader)()


def ways():
    """How each package is run, by name and way."""
    names = [name.replace("-", "_").lower() for name in PACKAGES]
    found = {}
    for name, own in zip(PACKAGES, names, strict=True):
        found[name, "before"] = globals()[own]
        found[name, "after"] = lambda page=f"{own}_cylstm": on_cylstm(page)
    found["silero-vad", "before, ONNX"] = silero_vad_onnx
    found["silero-vad", "after, window by window"] = lambda: on_cylstm(
        "silero_vad_cylstm", "load_stream"
    )
    return found


def one(name, way, whole):
    """Print the times of this process, and with `whole` throughput and answers, as JSON."""
    asked, unit, count = inputs_of(name)
    started = time.perf_counter()
    steps = ways()[name, way]()
    next(steps)
    imported = time.perf_counter()
    answer = next(steps)
    answer(first_of(name, asked))
    told = {"import": imported - started, "first": time.perf_counter() - started, "unit": unit}
    if whole:
        told["answers"] = [answer(each) for each in asked]
        done, begun = 0, time.perf_counter()
        while time.perf_counter() < begun + SECONDS:
            for each in asked:
                answer(each)
            done += count
        told["throughput"] = done / (time.perf_counter() - begun)
    print("\n" + json.dumps(told, default=lambda array: array.tolist()))


# The environments --------------------------------------------------------------------------------


def make(folder, cylstm, *names):
    folder.mkdir(exist_ok=True)
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for name in names or PACKAGES:
        before, after = PACKAGES[name]
        for way, packages in (("before", [name, *before]), ("after", [*after, cylstm])):
            place = folder / f"{name}-{way}"
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
            pip = [sys.executable, "-m", "pip", "--python", place / "bin/python", "install", "-q"]
            if way == "after":
                subprocess.run([*pip, "--no-deps", name], check=True, env=own)
            subprocess.run([*pip, *packages], check=True, env=own)
    if "dksplit" in (names or PACKAGES):  # onnx, which converts its model, is this Python's
        page = Path(__file__).with_name("dksplit_cylstm.py")
        own["PYTHONPATH"] = str(packages_of(folder, "dksplit", "after"))
        subprocess.run([sys.executable, page, "convert"], check=True, cwd=folder, env=own)


def packages_of(folder, name, way):
    (place,) = (folder / f"{name}-{way}").glob("lib/python*/site-packages")
    return place


def size_of(folder, name, way):
    """MB of an environment's packages, with their compiled Python."""
    files = [path for path in packages_of(folder, name, way).rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / 1e6


def process(folder, name, way, whole):
    python = folder / f"{name}-{way.partition(',')[0]}" / "bin/python"
    given = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [python, __file__, "one", folder, f"{name}={way}", *(["whole"] if whole else [])],
        capture_output=True, text=True, cwd=folder, env=os.environ | given,
        preexec_fn=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}),
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name}, {way}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(folder, name, way):
    found = [process(folder, name, way, whole=False) for _ in range(TIMES)]
    best = process(folder, name, way, whole=True)
    for key in ("import", "first"):
        best[key] = statistics.median(one[key] for one in found)
    return best | {"size": size_of(folder, name, way.partition(",")[0])}


# Answers -----------------------------------------------------------------------------------------


def flat(answers):
    """The parts of answers that are numbers, and the others."""
    if isinstance(answers, (list, tuple)):
        for part in answers:
            yield from flat(part)
    elif isinstance(answers, dict):
        yield from flat(list(answers.values()))
    else:
        yield answers


def apart(one, other):
    """How many answers to a call differ in what is no real number, and by how much these do."""
    one, other = ([each for call in way for each in several(call)] for way in (one, other))
    changed, furthest = 0, 0.0
    for a, b in zip(one, other, strict=True):
        a, b = list(flat(a)), list(flat(b))
        real = [(x, y) for x, y in zip(a, b, strict=False) if isinstance(x, float)]
        changed += [x for x in a if not isinstance(x, float)] != [
            y for y in b if not isinstance(y, float)
        ]
        furthest = max([furthest, *(abs(x - y) for x, y in real)])
    return changed, len(one), furthest


def several(call):
    """The answers of a call that was given many texts at once; else the one that it is."""
    return call if isinstance(call, list) and isinstance(call[0], list) else [call]


def run(folder, names):
    """Measure those that are named, NAME or NAME=WAY, and print all that were until now."""
    kept = folder / "measured.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    for name, way in ways():
        if not names or name in names or f"{name}={way}" in names:
            found[f"{name}={way}"] = measured(folder, name, way)
            kept.write_text(json.dumps(found))
    print("| package | | MB | import, s | first answer, s | throughput |")
    print("| --- | --- | --- | --- | --- | --- |")
    shown = [
        (name, way, found[f"{name}={way}"]) for name, way in ways() if f"{name}={way}" in found
    ]
    for name, way, own in shown:
        times = f"{own['size']:.0f} | {own['import']:.2f} | {own['first']:.2f}"
        print(f"| {name} | {way} | {times} | {own['throughput']:.4g} {own['unit']}/s |")
    for name, way, own in shown:
        if way != "before" and f"{name}=before" in found:
            before = found[f"{name}=before"]["answers"]
            changed, count, furthest = apart(before, own["answers"])
            print(f"{name}, {way}: {changed} of {count} answers differ; numbers by {furthest:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("do", choices=["make", "run", "one"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("more", nargs="*")
    given = parser.parse_args()
    folder = given.folder.absolute()
    if given.do == "make":
        make(folder, *given.more)
    elif given.do == "one":
        name, way = given.more[0].split("=")
        one(name, way, "whole" in given.more)
    else:
        run(folder, given.more)


if __name__ == "__main__":
    main()
