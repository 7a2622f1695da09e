"""Word error rate: normalisation and counting."""

import pytest

from rustpbx.testing.wer import word_error_rate, word_errors, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("I'd like it; we'll see.", "i would like it we will see"),
        ("I\u2019m here, they can't, won't, don't", "i am here they can not will not do not"),
        ("cannot", "can not"),
        ("7 o'clock", "seven oclock"),
        ("room 21 at 10", "room twenty one at ten"),
        ("the 21st of the 3rd, 20th", "the twenty first of the third twentieth"),
        ("1,250 and 300", "one thousand two hundred fifty and three hundred"),
        ("call 0451 55512", "call zero four five one five five five one two"),
        ("50% & more", "fifty percent and more"),
        ("well-known  TWO-part", "well known two part"),
        ("...", ""),
        ("你好 Grüße", "你好 grüße"),
    ],
)
def test_normalised(text: str, expected: str) -> None:
    """One spelling for what sounds the same."""
    assert words(text) == expected.split()


@pytest.mark.parametrize(
    ("reference", "heard", "errors"),
    [
        ("", "", 0),
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a b c", "a b b c", 1),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("a b c d", "b c d e", 2),
    ],
)
def test_counted(reference: str, heard: str, errors: int) -> None:
    """Substitutions, deletions and insertions cost one each, and the cheapest alignment counts."""
    assert word_errors(reference.split(), heard.split()) == errors


@pytest.mark.parametrize(
    ("reference", "heard", "rate"),
    [
        ("I'd like 2 tickets, please.", "i would like two tickets please", 0.0),
        ("one two three four five", "one two three four", 0.2),
        ("yes", "no no", 2.0),
        ("", "", 0.0),
        ("", "noise", 1.0),
    ],
)
def test_rate(reference: str, heard: str, rate: float) -> None:
    """Errors per word of the reference, after normalising both."""
    assert word_error_rate(reference, heard) == rate
