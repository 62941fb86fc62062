"""The options of chargen-ort, as its commands take them and as their help pages say them."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from chargen_ort.options import CONTROL_TABLE, TABLE

TEXT, _SAMPLING, _CONTROL, _OUTPUT = "Text", "Sampling", "What to write", "Output"

Unknown = Literal["error", "skip", "replace"]  # UnknownPolicy, whose module needs NumPy

Start = Annotated[
    str,
    typer.Option(
        help="The text to go on from; it is printed before what the model writes. An empty one "
        "begins a text. - reads it from standard input, as it is. Otherwise the escapes "
        r"\n (line end), \t (tab), \\ (backslash) and \uXXXX (a character by its code) are read.",
        rich_help_panel=TEXT,
    ),
]
Length = Annotated[
    int,
    typer.Option(help="How many characters the model writes at most.", rich_help_panel=TEXT),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        help="The text ends before this string. The option may be repeated, and it has the "
        r"escapes of --start: --stop '\n' ends at a line end.",
        rich_help_panel=TEXT,
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(
        help="A regular expression that the whole text matches, its start included. The text ends "
        "where the model ends it, or in a model of running text where it leaves the pattern; it "
        "always ends within --length.",
        rich_help_panel=_CONTROL,
    ),
]
Ban = Annotated[
    list[str] | None,
    typer.Option(
        help="The whole text does not have this string. The option may be repeated, and it has the "
        "escapes of --start.",
        rich_help_panel=_CONTROL,
    ),
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Draw freely, and begin a text anew, up to 10,000 times, that leaves what it is "
        "confined to: the texts are then the model's own that are as you want them. Without it "
        "each draw is confined, which is quicker and prefers some texts to others.",
        rich_help_panel=_CONTROL,
    ),
]
Unique = Annotated[
    bool, typer.Option("--unique", help="Write no text twice.", rich_help_panel=_CONTROL)
]
New = Annotated[
    bool,
    typer.Option(
        "--new",
        help="Write no text that is a document of the corpus, by the filter that train-export "
        "--with-filter puts into the model. It takes 1 in 1,000,000 other texts for one.",
        rich_help_panel=_CONTROL,
    ),
]
NotIn = Annotated[
    list[Path] | None,
    typer.Option(
        help="Write no text that is a line of this file. The option may be repeated.",
        rich_help_panel=_CONTROL,
    ),
]
StartUnknown = Annotated[
    Unknown | None,
    typer.Option(
        help="What to do with a character of the start that the model does not know: refuse it, "
        "leave it out, or read the model's replacement instead. By default the model's own "
        "setting decides.",
        rich_help_panel=TEXT,
    ),
]
WriterModel = Annotated[
    Path | None,
    typer.Option(
        help="An .onnx file of train-export. If none is named: $CHARGEN_MODEL, else the newest "
        "in ./artifacts, else the demo.",
        rich_help_panel=TEXT,
    ),
]
Num = Annotated[
    int,
    typer.Option(
        "--num",
        "-n",
        help="How many texts to write, each followed by a line end.",
        rich_help_panel=_OUTPUT,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(help="How many texts are written side by side.", rich_help_panel=_OUTPUT),
]
NoEcho = Annotated[
    bool,
    typer.Option(
        "--no-echo",
        help="Print only what the model writes, without the start.",
        rich_help_panel=_OUTPUT,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object a text: start, text (what the model wrote), its log "
        "probability in nats, why it ended, seed and row.",
        rich_help_panel=_OUTPUT,
    ),
]
Interactive = Annotated[
    bool,
    typer.Option(
        "--interactive",
        help="Open a prompt: the model goes on from each line that you type.",
        rich_help_panel=_OUTPUT,
    ),
]
Raw = Annotated[
    bool,
    typer.Option(
        "--raw",
        help="Send control characters to a terminal as they are, not as escapes.",
        rich_help_panel=_OUTPUT,
    ),
]
Version = Annotated[bool, typer.Option("--version", "-V", help="Print the version and exit.")]
_SAME_MODEL = "An .onnx file of train-export. By default the one that chargen-ort writes with."
File = Annotated[Path | None, typer.Argument(help=_SAME_MODEL)]
Model = Annotated[Path | None, typer.Option("--model", help=_SAME_MODEL)]


def with_sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, shown to typer with an option for each row of the tables before --num."""
    parameters = list(inspect.signature(command).parameters.values())[:-1]
    for table, panel, before in (
        (TABLE, _SAMPLING, "pattern"),
        (CONTROL_TABLE, _CONTROL, "ban"),
    ):
        rows = [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=None,
                annotation=Annotated[
                    int | None if row.whole else float | None,
                    typer.Option(help=row.help, rich_help_panel=panel),
                ],
            )
            for name, row in table.items()
        ]
        place = [parameter.name for parameter in parameters].index(before)
        parameters[place:place] = rows
    command.__dict__["__signature__"] = inspect.Signature(parameters)
    return command
