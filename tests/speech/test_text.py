"""Texts cut into sentences while they are being written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.speech.text import LONGEST, Sentences, without_emoji


def cut(*pieces: str) -> list[str]:
    """All sentences of a text that comes in these pieces."""
    sentences = Sentences()
    return [sentence.text for piece in pieces for sentence in sentences.feed(piece)] + [
        sentence.text for sentence in sentences.flush()
    ]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Hello there. How are you? Fine!", ["Hello there.", "How are you?", "Fine!"]),
        ("It costs 3.50 euros. At example.com, v1.2!", ["It costs 3.50 euros.", "At example.com, v1.2!"]),
        ("Dr. Smith and J. Doe, e.g. here. Yes.", ["Dr. Smith and J. Doe, e.g. here.", "Yes."]),
        ("Am 3. Mai, ca. um 5. Gut.", ["Am 3. Mai, ca. um 5. Gut."]),
        ("«Ça va ?» Oui. Bien sûr…", ["«Ça va ?»", "Oui.", "Bien sûr…"]),
        ("He said “go.” She went.", ["He said “go.”", "She went."]),
        ("今日は。元気ですか？そう…", ["今日は。", "元気ですか？", "そう…"]),  # noqa: RUF001
        ("你好！今天星期二；明天见", ["你好！", "今天星期二；", "明天见"]),  # noqa: RUF001
        ("one\ntwo\n\nthree", ["one", "two", "three"]),
        ("Really?! Yes... no", ["Really?!", "Yes...", "no"]),
        ("  \n ", []),
    ],
)
def test_sentences_of_european_and_cjk_texts(text: str, sentences: list[str]) -> None:
    """A mark and a space end a sentence, CJK marks do alone; numbers, initials and abbreviations do not."""
    assert cut(text) == sentences
    assert cut(*text) == sentences


def test_a_closing_quote_belongs_to_its_sentence() -> None:
    """As far as it is there: a CJK sentence does not wait for what may follow."""
    assert cut("「はい。」そう") == ["「はい。」", "そう"]


def test_a_sentence_is_out_with_its_last_piece_and_tells_where_it_stood() -> None:
    """What is not whole is pending; what looks whole is settled."""
    sentences = Sentences()
    assert sentences.feed("Hello the") == []
    assert (sentences.pending, sentences.settled) == (True, False)
    assert sentences.feed("re.") == []
    assert (sentences.pending, sentences.settled) == (True, True)
    (hello,) = sentences.feed(" Dr.")
    assert (hello.text, hello.start) == ("Hello there.", 0)
    assert (sentences.pending, sentences.settled) == (True, False)
    (rest,) = sentences.flush()
    assert (rest.text, rest.start) == ("Dr.", 13)
    assert not sentences.pending


def test_a_text_without_marks_is_cut_at_commas_and_spaces() -> None:
    """No piece is longer than a voice can say in one go, even one without any space."""
    words = "word " * 200
    assert " ".join(cut(words)) == words.strip()
    assert max(map(len, cut(words))) <= LONGEST
    assert list(map(len, cut("x" * 700))) == [300, 300, 100]


@given(st.lists(st.text(alphabet='aZ1 .!?。\n"),；😀é', max_size=60)))  # noqa: RUF001
def test_no_character_is_lost_or_said_twice(pieces: list[str]) -> None:
    """Each sentence stands in the whole text where it says, behind the one before, with only space between them."""
    sentences, whole = Sentences(), "".join(pieces)
    found = [sentence for piece in pieces for sentence in sentences.feed(piece)] + sentences.flush()
    at = 0
    for sentence in found:
        assert whole[at : sentence.start].strip() == ""
        at = sentence.start + len(sentence.text)
        assert whole[sentence.start : at] == sentence.text
    assert whole[at:].strip() == ""


def test_a_long_text_is_cut_in_linear_time() -> None:
    """256 KB in one piece, with and without marks: thousands of sentences, each found by a look at its own text."""
    assert len(cut("Hi there. " * 26_000)) == 26_000
    assert len(cut("x" * 262_144)) == 262_144 // LONGEST + 1


def test_emoji_leave_a_space() -> None:
    """They have no sound, and marks into the text stay right; letters of any script are kept."""
    assert without_emoji("a😀b👍🏽c☎️d e\N{ZERO WIDTH JOINER}") == "a b  c  d e "
    assert without_emoji("é 中 ß (c) 1 # *") == "é 中 ß (c) 1 # *"
