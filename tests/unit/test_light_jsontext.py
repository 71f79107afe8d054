"""Our reading and writing of JSON is the standard library's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.light import jsontext

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(VALUES, st.booleans(), st.booleans())
def test_the_texts_are_those_of_json(value: object, ascii_only: bool, compact: bool) -> None:
    separators = (",", ":") if compact else (", ", ": ")
    expected = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    assert jsontext.dumps(value, ascii_only=ascii_only, compact=compact) == expected
    assert repr(jsontext.loads(expected)) == repr(json.loads(expected))
    assert repr(jsontext.loads(expected.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass"))) == repr(
        json.loads(expected)
    )


def test_keys_can_be_sorted_and_other_values_made_known() -> None:
    assert jsontext.dumps({"b": 1, "a": {3}}, sort=True, default=list) == '{"a":[3],"b":1}'
    assert jsontext.dumps({1: 2, None: True}) == json.dumps({1: 2, None: True}, separators=(",", ":"))
    with pytest.raises(TypeError):
        jsontext.dumps(object())


@given(st.text() | st.binary())
def test_whatever_is_not_json_is_a_value_error_for_both(text: str | bytes) -> None:
    try:
        expected = json.loads(text.decode() if isinstance(text, bytes) else text)
    except ValueError:
        with pytest.raises(ValueError):
            jsontext.loads(text)
    else:
        assert repr(jsontext.loads(text)) == repr(expected)


@pytest.mark.parametrize("text", ["", " ", "{", '{"a":1}x', "[1,]", "nul", '"\\x"', "{'a':1}", "\ufeff{}", "01"])
def test_bad_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        jsontext.loads(text)


def test_a_circle_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(ValueError):
        jsontext.dumps(circle)


def test_bad_json_is_refused_where_the_json_package_is_not_loaded() -> None:
    program = (
        "import sys\nfrom kapelle.light import jsontext\nassert 'json' not in sys.modules\n"
        "for text in ('{no', '[1,]', '\"x', 'nul', '{\"a\" 1}'):\n"
        "    try:\n        jsontext.loads(text)\n    except ValueError:\n        continue\n"
        "    sys.exit(f'taken: {text}')\n"
    )
    source = Path(jsontext.__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(source)}, check=False)
    assert done.returncode == 0
