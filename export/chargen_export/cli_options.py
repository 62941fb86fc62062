"""The options of train-export, as its commands take them and as their help pages say them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

_TEXT, _MODEL, _TRAINING = "Text", "Model", "Training"
RUN, FILES = "Run", "Files"

Corpus = Annotated[
    list[Path] | None,
    typer.Argument(
        help="The text to learn from: UTF-8 files, plain or gzip, folders of such files, or - for "
        "standard input; of several, each is read after the other.",
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        help="The file to write, or with a slash at its end the folder of the file. By default "
        "it is artifacts/<corpus name>.onnx.",
        rich_help_panel=RUN,
    ),
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="A model of train-export in fp32 whose weights training goes on from. Its sizes stay, "
        "and it learns the characters that it does not know.",
        rich_help_panel=_TRAINING,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace a model of another corpus if there is one.",
        rich_help_panel=RUN,
    ),
]
Documents = Annotated[
    Literal["auto", "none", "lines", "blank", "files"] | None,
    typer.Option(
        help="What a document is, a text of its own with a beginning and an end that the model "
        "learns: each of the lines, what stands between blank lines, each of the files, or none "
        "where the text runs on. The default is auto, which takes lines where the file looks like "
        "a list, and says so.",
        rich_help_panel=_TEXT,
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        help="The corpus is a table (CSV, TSV): learn from the values of this column, each a "
        "document. Give its name in the first line; or its number, from 1, if that line has no "
        "names.",
        rich_help_panel=_TEXT,
    ),
]
Holdout = Annotated[
    str | None,
    typer.Option(
        metavar="[tail|spread|none|FILE]",
        help="What is not trained on and measures the model: the last tenth, a tenth spread over "
        "the whole corpus, nothing, or a text of its own. The default is spread, and none for a "
        "short corpus.",
        rich_help_panel=_TEXT,
    ),
]
Unit = Annotated[
    Literal["char", "byte", "word", "bpe"] | None,
    typer.Option(
        help="What the model reads and writes at a time: a character; a byte of UTF-8; a frequent "
        "word, where others are spelled; or a piece of a word, learnt from the text. Pieces write "
        "fastest. The default is char.",
        rich_help_panel=_TEXT,
    ),
]
VocabSize = Annotated[
    int | None,
    typer.Option(
        help="How many different words or pieces there are, the single characters among them. By "
        "default 4096 words or 512 pieces, and more where the text has many characters.",
        rich_help_panel=_TEXT,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The encoding of texts that are not UTF-8, such as cp1252 or shift_jis.",
        rich_help_panel=_TEXT,
    ),
]
MinCount = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Read characters that the text has less often as one unknown character, U+FFFD. "
        "The default is 1: every character counts.",
        rich_help_panel=_TEXT,
    ),
]
SkipUnreadable = Annotated[
    bool,
    typer.Option(
        "--skip-unreadable",
        help="Leave out files that are no texts, and say which.",
        rich_help_panel=_TEXT,
    ),
]
Preset = Annotated[
    Literal["lesson"] | None,
    typer.Option(
        help="Ready-made settings. lesson trains 200 steps of one window of 5 characters at rate "
        "0.01, with an embedding of 16 and 32 hidden units.",
        rich_help_panel=RUN,
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        help="How many minutes to train, export included. By default the size of the corpus "
        "decides.",
        rich_help_panel=_TRAINING,
    ),
]
Epochs = Annotated[
    float | None,
    typer.Option(
        help="How many times to read the corpus, instead of a number of minutes.",
        rich_help_panel=_TRAINING,
    ),
]
HiddenSize = Annotated[
    int | None, typer.Option(help="The width of each GRU layer.", rich_help_panel=_MODEL)
]
NumLayers = Annotated[
    int | None, typer.Option(help="The number of GRU layers.", rich_help_panel=_MODEL)
]
EmbeddingDim = Annotated[
    int | None, typer.Option(help="The width of the embedding.", rich_help_panel=_MODEL)
]
Dropout = Annotated[
    float | None,
    typer.Option(
        help="The probability of dropping a weight or a feature while training, 0 to 0.9. By "
        "default it follows from how often the corpus is read.",
        rich_help_panel=_TRAINING,
    ),
]
SeqLength = Annotated[
    int | None,
    typer.Option(help="How many characters a window has.", rich_help_panel=_TRAINING),
]
BatchSize = Annotated[
    int | None, typer.Option(help="How many windows a step reads.", rich_help_panel=_TRAINING)
]
LearningRate = Annotated[
    float | None,
    typer.Option(help="The highest rate of the schedule.", rich_help_panel=_TRAINING),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="The seed of the first weights, the windows and dropout. The default is 0.",
        rich_help_panel=_TRAINING,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the run that was stopped or killed, with its settings. One that has ended "
        "takes more --minutes or --epochs.",
        rich_help_panel=RUN,
    ),
]
CheckpointMinutes = Annotated[
    float,
    typer.Option(help="The longest time between two checkpoints.", rich_help_panel=RUN),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None,
    typer.Option(
        help="Where to train. The default is auto, which takes a GPU if there is one.",
        rich_help_panel=RUN,
    ),
]
Precision = Annotated[
    Literal["fp32", "fp16", "int8", "all"] | None,
    typer.Option(
        help="The number format of the file. fp16 and int8 files are smaller, and they are written "
        "next to the fp32 file that they are made of. The default is fp32.",
        rich_help_panel=FILES,
    ),
]
WithFilter = Annotated[
    bool,
    typer.Option(
        "--with-filter",
        help="Put a filter of the documents into the file, 5 bytes for each, by which "
        "chargen-ort --new writes none of them. Of more than 200,000 it is a file beside it.",
        rich_help_panel=FILES,
    ),
]
MaxLossIncrease = Annotated[
    float | None,
    typer.Option(
        help="Refuse to write an fp16 or int8 file whose loss on text is higher than that of fp32 "
        "by more than this, in nats a character. The default is 0.005.",
        rich_help_panel=FILES,
    ),
]
Version = Annotated[bool, typer.Option("--version", "-V", help="Print the version and exit.")]
