import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.rules.normalise import Normaliser, Spelling

SPELLING = Spelling(
    words=frozenset({"kill", "myself", "die", "dead", "want", "to", "suicide", "so"}),
    aliases={"kms": "kill myself", "can't": "can not", "im": "i am", "gonna": "going to"},
    symbols={"к": "k", "і": "i", "’": "'", "🔫": " gun "},
)
NORMALISER = Normaliser(SPELLING)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("KILL Myself", "kill myself"),
        ("ｋｉｌｌ ｍｙｓｅｌｆ", "kill myself"),
        ("k\u200bi\u200bl\u00adl", "kill"),
        ("кіll", "kill"),
        ("k\u0336i\u0336l\u0336l\u0336", "kill"),
        ("k1ll mys3lf", "kill myself"),
        ("$uic1de", "suicide"),
        ("s*icide", "suicide"),
        ("k i l l  m y s e l f", "kill myself"),
        ("w a n t t o k i l l m y s e l f", "want t o kill myself"),
        ("k.i.l.l", "kill"),
        ("sui-cide", "suicide"),
        ("self-harm", "self harm"),
        ("diiiie", "die"),
        ("killlll", "kill"),
        ("sooooo", "so"),
        ("I’m  gonna\tkms", "i am going to kill myself"),
        ("I can't, they'll, don't", "i can not, they will, do not"),
        ("the 🔫", "the gun "),
        ("one \r\n\r\n two", "one\ntwo"),
    ],
)
def test_undoes_disguise(written: str, read: str) -> None:
    assert NORMALISER(written) == read


@pytest.mark.parametrize(
    "text", ["b2b sales", "a b c d e", "i.e. this", "room 101", "f*** this", "call 911", "c:/home/x"]
)
def test_leaves_other_text_alone(text: str) -> None:
    assert NORMALISER(text) == text


@pytest.mark.parametrize(
    ("written", "word", "original"),
    [
        ("I'm gonna k1ll it", "kill", "k1ll"),
        ("so 🔫🔫 I will kms now", "myself", "kms"),
        ("please d\u200bi\u200be now", "die", "d\u200bi\u200be"),
        ("a\u0301\u0301 want t o d  i  e", "die", "d  i  e"),
        ("ﬁne, kіll", "kill", "kіll"),
    ],
)
def test_span_slices_the_original(written: str, word: str, original: str) -> None:
    normalised = NORMALISER.normalise(written)
    start = normalised.text.index(word)
    begin, end = normalised.span(start, start + len(word))
    assert written[begin:end] == original


@given(st.text(), st.data())
def test_every_span_maps_into_the_original(text: str, data: st.DataObject) -> None:
    normalised = NORMALISER.normalise(text)
    if not normalised.text:
        return
    start = data.draw(st.integers(0, len(normalised.text) - 1))
    end = data.draw(st.integers(start + 1, len(normalised.text)))
    begin, finish = normalised.span(start, end)
    assert 0 <= begin < finish <= len(text)


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_span_of_untouched_text_is_the_same(text: str) -> None:
    normalised = Normaliser(Spelling()).normalise(text)
    if normalised.text and not normalised.passes:
        assert normalised.span(0, len(text)) == (0, len(text))
        assert normalised.text == text.lower()


@given(st.text())
def test_normalised_text_is_utf8(text: str) -> None:
    NORMALISER(text + "\ud800").encode()
