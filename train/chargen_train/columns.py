"""One column of a table (CSV, TSV and the like), whose values are documents."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chargen_ort.checks import printable
from chargen_ort.documents import split_lines
from chargen_ort.errors import CorpusError

_DELIMITERS = "\t,;"
_MOST_SHOWN = 200  # characters of the names of columns in a message


@dataclass
class Column:
    """The values of one column, read once.

    Args:
        pieces: of the table's text, in their order.
        column: its name in the first line; or else its number, from 1, in a table without names.
        path: of the table, for messages.

    Attributes:
        missing: how many lines were too short to have a value; known after the last one.
    """

    pieces: Iterable[str]
    column: str
    path: str
    missing: int = 0

    def __iter__(self) -> Iterator[str]:
        lines = split_lines(self.pieces)
        first = next(lines, "")
        delimiter = max(_DELIMITERS, key=first.count)
        rows = csv.reader(_with_line_ends(first, lines), delimiter=delimiter)
        try:
            head = next(rows, [])
            index, named = self._find(head)
            for row in rows if named else _chained(head, rows):
                if index >= len(row):
                    self.missing += bool(row)
                elif row[index]:
                    yield row[index]
        except csv.Error as error:
            raise CorpusError(
                f"{self.path} is no table that can be read: line {rows.line_num}: {error}"
            ) from None

    def _find(self, head: list[str]) -> tuple[int, bool]:
        """The place of the column, from 0, and whether the first line has the names."""
        if self.column in head:
            return head.index(self.column), True
        if self.column.isdecimal() and 1 <= int(self.column) <= len(head):
            return int(self.column) - 1, False
        names = printable(", ".join(head), _MOST_SHOWN)
        raise CorpusError(
            f"{self.path} has no column {printable(self.column, 60)}; its first line has "
            f"{len(head)}: {names}; give --column one of these names, or a number from 1"
        )


def _with_line_ends(first: str, others: Iterator[str]) -> Iterator[str]:
    yield first + "\n"  # the reader needs them: a value in quotes may have line ends
    yield from (line + "\n" for line in others)


def _chained(head: list[str], rows: Iterable[list[str]]) -> Iterator[list[str]]:
    yield head
    yield from rows
