from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen_ort import OptionError, UnknownCharacterError, Vocabulary, cli_options
from chargen_ort import vocabulary as vocabulary_module


def test_characters_are_in_code_point_order():
    assert Vocabulary.from_texts(["world", "hello"]).characters == "dehlorw"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_decoding_undoes_encoding(text):
    vocabulary = Vocabulary.from_texts([text])
    tokens = vocabulary.encode(text)
    assert tokens.dtype == np.int64
    assert tokens.shape == (len(text),)
    assert vocabulary.decode(tokens) == text
    assert Vocabulary.from_texts([text]).characters == "".join(sorted(set(text)))


def test_long_texts_are_encoded_in_pieces():
    vocabulary = Vocabulary.from_texts(["hello world"])
    pieces = list(vocabulary.encode_pieces("hello world", size=3))
    assert [vocabulary.decode(piece) for piece in pieces] == ["hel", "lo ", "wor", "ld"]
    with pytest.raises(UnknownCharacterError, match="position 7"):
        list(vocabulary.encode_pieces("hello wxrld", size=3))


@pytest.mark.parametrize("character", ["x", "é", "\U0001f600", "\ud800", "\0"])
def test_an_unknown_character_is_named_with_its_code_point_and_position(character):
    with pytest.raises(UnknownCharacterError) as caught:
        Vocabulary("abc").encode("ab" + character)
    assert (caught.value.character, caught.value.position) == (character, 2)
    assert f"U+{ord(character):04X}" in str(caught.value)


def test_policies_for_unknown_characters():
    vocabulary = Vocabulary("abc ?")
    assert vocabulary.decode(vocabulary.encode("a–b", "skip")) == "ab"
    assert vocabulary.decode(vocabulary.encode("a–b", "replace")) == "a?b"
    assert Vocabulary("abc ", "replace").replacement == " "
    assert Vocabulary("abc", "skip").encode("xyz").shape == (0,)
    with pytest.raises(OptionError, match="ignore"):
        vocabulary.encode("a", "ignore")


@pytest.mark.parametrize("characters", ["", "aa"])
def test_a_vocabulary_has_distinct_characters(characters):
    with pytest.raises(OptionError):
        Vocabulary(characters)


def test_the_command_offers_each_policy():
    assert get_args(cli_options.Unknown) == vocabulary_module.UNKNOWN_POLICIES


@pytest.mark.parametrize("tokens", [[-1], [3], [0.5], ["a"]])
def test_tokens_outside_are_refused(tokens):
    with pytest.raises(OptionError):
        Vocabulary("abc").decode(np.array(tokens))


def test_only_text_is_encoded():
    with pytest.raises(OptionError, match="bytes"):
        Vocabulary("abc").encode(b"abc")
