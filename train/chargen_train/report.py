"""The report: one HTML page that opens anywhere, with no script and nothing to fetch."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from chargen_ort.certificate import Certificate
from chargen_ort.provenance import Training
from chargen_ort.reports import describe_certificate, describe_comparisons, describe_versions
from chargen_ort.strict import record_of
from chargen_train.chart import Curve, render_chart
from chargen_train.evaluate import bits_per_char

Json = Mapping[str, Any]

_STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #fff; --ink: #1d2129; --soft: #5d6675;
  --line: #e2e4e8; --train: #2f6fdb; --validation: #c8501e; --good: #1b7f4b; --mark: #eef1f6; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --card: #1b1f26; --ink: #e6e9ee;
  --soft: #9aa4b2; --line: #2e343d; --train: #78a9ff; --validation: #ff9566; --good: #5fcf94;
  --mark: #252b34; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
p { margin: .5rem 0; } .soft { color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.6rem, 1fr)); gap: .8rem;
  margin: 1.6rem 0 0; }
.card, .panel { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
.card { padding: .8rem 1rem; } .card b { display: block; font-size: 1.3rem; line-height: 1.4;
  white-space: nowrap; }
.card span { color: var(--soft); font-size: .85rem; }
.panel { padding: 1rem; overflow-x: auto; } .good { color: var(--good); font-weight: 600; }
.warning { border-left: .25rem solid var(--validation); padding-left: .8rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
tr:last-child > * { border-bottom: 0; } th { font-weight: 500; color: var(--soft); width: 14rem; }
pre, code { font-family: ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace;
  font-size: .86rem; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
pre.command { background: var(--mark); border-radius: .4rem; padding: .7rem .9rem;
  margin: .4rem 0; }
.columns tbody { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); }
.columns tr { display: flex; border-bottom: 1px solid var(--line); } .columns tr > * { border: 0; }
svg.chart { min-width: 34rem; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft);
  font: 12px system-ui, "DejaVu Sans", sans-serif; }
svg .grid { stroke: var(--line); } svg path { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .train { stroke: var(--train); } svg .validation { stroke: var(--validation); }
svg circle.validation { fill: var(--validation); }
svg circle.train, svg rect.train { fill: var(--train); }
.samples { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); }
.samples h3 { font-size: .8rem; font-weight: 500; color: var(--soft); margin: 0 0 .3rem; }
details { margin: .6rem 0; } summary { cursor: pointer; padding: .2rem 0; }
.key { display: inline-block; width: 1.2rem; height: .2rem; vertical-align: middle;
  margin: 0 .35rem 0 0; background: currentColor; }
"""


_HOLDOUT = {
    "tail": "the last tenth",
    "spread": "spread over the corpus",
    "none": "nothing",
}


def render_report(config: Json, metrics: Sequence[Json]) -> str:
    """The page of a run, finished or not.

    Args:
        config: what `config.json` holds, see `chargen_train.run_folder`.
        metrics: the lines of `metrics.jsonl`.
    """
    corpus = config["corpus"]
    training = _training(config)
    sections = [
        _heading(config, metrics),
        _section("Loss", _curves(metrics)),
        _section("What it wrote as it learnt", _samples(metrics)),
        _section("Corpus", _corpus(corpus)),
        _section("Settings", _table(_settings(config), "panel columns")),
    ]
    if training:
        sections.insert(3, _section("How to use it", _usage(config)))
        sections.insert(4, _section("Proof that the export is exact", _parity(config)))
    title = f"{corpus['name']}: a chargen run"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>\n"
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )


def _heading(config: Json, metrics: Sequence[Json]) -> str:
    corpus, settings, training = config["corpus"], config["settings"], _training(config)
    last = metrics[-1] if metrics else None
    state = "finished" if training else f"{last['fraction']:.0%} done" if last else "just begun"
    sizes = (
        f"GRU {settings['num_layers']} × {settings['hidden_size']}, "
        f"embedding {settings['embedding_dim']}"
    )
    cards: list[tuple[str, str]] = []
    measured = [line["validation"] for line in metrics if "validation" in line]
    if training and training.validation:
        validation = training.validation
        cards.append((f"{validation.bits_per_char:.3f}", "bits per character, held-out text"))
        cards.append((f"{validation.nats_per_char:.4f}", "nats per character, held-out text"))
    elif measured:
        cards.append((f"{bits_per_char(min(measured)):.3f}", "bits per character, best so far"))
    if last:
        cards.append((_duration(last["seconds"]), "of training"))
        cards.append((f"{last['chars_per_second']:,.0f}", "characters a second"))
        cards.append((f"{last['step']:,}", "steps"))
    if training:
        cards.append((f"{training.exported_step:,}", "step whose weights are exported"))
        cards.append((_bytes(config["artifact_bytes"]), f"file {config['artifact']}"))
    shown = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for value, label in cards
    )
    return (
        f"<h1>{escape(corpus['name'])}</h1>"
        f'<p class="soft">A character-level language model: {escape(sizes)}. '
        f'Run {escape(state)}.</p><div class="cards">{shown}</div>'
        + "".join(
            f"<p>{escape(_as_sentence(sentence))}</p>"
            for _, sentence in (describe_comparisons(training) if training else ())
        )
        + "".join(
            f'<p class="warning">{escape(_as_sentence(note))}</p>'
            for note in (training.notes if training else ())
        )
    )


def _as_sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


def _curves(metrics: Sequence[Json]) -> str:
    if not metrics:
        return '<p class="soft">No step has been recorded yet.</p>'
    train = _curve_of_each_phase("train", "loss", metrics)
    validation = _curve_of_each_phase("validation", "validation", metrics)
    legend = '<span style="color:var(--train)"><i class="key"></i></span>training'
    if validation:
        legend += (
            ' &nbsp; <span style="color:var(--validation)"><i class="key"></i></span>'
            "validation (averaged weights, held-out text)"
        )
    else:
        legend += " &nbsp; (the corpus is too short to hold any text out)"
    if phase := _phase(metrics[-1]):
        legend += (
            f"<br>Several models take turns, each begins anew: teachers first, then the model that "
            f"is kept, which learns from them. Last: {escape(phase)}."
        )
    chart = render_chart([*train, *validation], "step", "bits per character")
    return f'<div class="panel">{chart}</div><p class="soft">{legend}</p>'


def _curve_of_each_phase(name: str, key: str, metrics: Sequence[Json]) -> list[Curve]:
    lines = (line for line in metrics if key in line)
    return [
        Curve(name, [(line["step"], bits_per_char(line[key])) for line in phase])
        for _, phase in groupby(lines, key=_phase)
    ]


def _phase(line: Json) -> str:
    """Which of several models a line is about; empty if the run has one."""
    phase: str = line.get("phase", "")
    return phase


def _samples(metrics: Sequence[Json]) -> str:
    lines = [line for line in metrics if line.get("samples")]
    if not lines:
        return '<p class="soft">No sample has been taken yet.</p>'
    parts = []
    for line in reversed(lines):
        columns = "".join(
            f'<div class="panel"><h3>temperature {escape(temperature)}</h3>'
            f"<pre>{escape(_visible(text))}</pre></div>"
            for temperature, text in line["samples"].items()
        )
        measured = f", {line['bits_per_char']:.3f} bits/char" if "bits_per_char" in line else ""
        phase = f", {escape(_phase(line))}" if _phase(line) else ""
        whole = f"part {line['part']}" if "part" in line else "the run"
        is_open = " open" if line in (lines[-1], lines[0]) else ""
        parts.append(
            f"<details{is_open}><summary>step {line['step']:,} "
            f'<span class="soft">({line["fraction"]:.0%} of {whole}{measured}{phase})</span>'
            f"</summary>"
            f'<div class="samples">{columns}</div></details>'
        )
    return "".join(parts)


def _corpus(corpus: Json) -> str:
    characters, counts = corpus["vocabulary"], corpus["counts"]
    held_out = corpus["held_out_characters"]
    named = zip(counts, characters, strict=False)  # the end token has no name
    common = sorted(named, key=lambda pair: -pair[0])[:20]
    highest = max(common[0][0], 1)
    bars = "".join(
        f'<rect class="train" x="{10 + 35 * i}" y="{90 - 80 * count / highest:.1f}" width="24" '
        f'height="{max(80 * count / highest, 0.5):.1f}"><title>{count:,}</title></rect>'
        f'<text x="{22 + 35 * i}" y="106" text-anchor="middle">{escape(_name(c))}</text>'
        for i, (count, c) in enumerate(common)
    )
    chart = (
        f'<svg viewBox="0 0 {20 + 35 * len(common)} 112" role="img" '
        f'aria-label="the most frequent characters" style="max-width:{20 + 35 * len(common)}px">'
        f"{bars}</svg>"
    )
    facts = {
        "characters": f"{corpus['characters']:,}",
        "training": f"{corpus['training_characters']:,}",
        "held out": f"{held_out:,} ({_HOLDOUT.get(corpus['reading']['holdout'], 'of a file')})",
        "documents": corpus["decision"],
        "vocabulary": f"{len(characters):,} characters",
        "SHA-256 of the file": corpus["sha256"],
    }
    return (
        f'{_table(facts)}<p class="soft">The most frequent characters</p>'
        f'<div class="panel">{chart}</div><details><summary>How it begins</summary>'
        f'<div class="panel"><pre>{escape(_visible(corpus["begins"]))}</pre></div></details>'
    )


def _training(config: Json) -> Training | None:
    return record_of(Training, config["training"], "training") if "training" in config else None


def _settings(config: Json) -> dict[str, str]:
    settings = {k: _shown(v) for k, v in config["settings"].items() if v is not None}
    settings |= {"chargen": config["chargen"], **config["versions"]}
    return settings


def _parity(config: Json) -> str:
    certificate = record_of(Certificate, config["parity"], "parity")
    facts = {
        "compared": describe_certificate(certificate, config["precision"]),
        "batch sizes": ", ".join(map(str, certificate.batches)),
        "largest hidden difference": f"{certificate.largest_hidden_difference:.1e}",
        "versions": ", ".join(describe_versions(certificate.versions)),
    }
    return f'<p class="good">Parity proven, on the bytes that were written</p>{_table(facts)}'


def _usage(config: Json) -> str:
    name = config["artifact"]
    start = config["corpus"]["begins"].strip().split("\n")[0][:4]
    is_list = config["corpus"]["reading"]["documents"] != "none"
    asked = "--num 20" if is_list else f"--start {_quoted(start)}"
    shell = f"pip install chargen-ort\nchargen-ort --model {_quoted(name)} {asked}"
    python = (
        f"import chargen_ort\n\nmodel = chargen_ort.load({name!r})\n"
        f"print(model.generate({start!r}, length=200, temperature=0.8, seed=7))"
    )
    return (
        f'<p>In a shell:</p><pre class="command">{escape(shell)}</pre>'
        f'<p>In a program, without PyTorch:</p><pre class="command">{escape(python)}</pre>'
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>"


def _table(facts: Mapping[str, str], style: str = "panel") -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(key.replace("_", " "))}</th><td>{escape(value)}</td></tr>'
        for key, value in facts.items()
    )
    return f'<div class="{style}"><table><tbody>{rows}</tbody></table></div>'


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _name(character: str) -> str:
    return {" ": "space", "\n": "line", "\t": "tab"}.get(character, _visible(character))


def _visible(text: str) -> str:
    """`text` with what HTML does not allow or a page would act on shown as escapes."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
