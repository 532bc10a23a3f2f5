"""Where in a TOML file a value is."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastws.command.toml import BadFile, parse

TEXT = '''\
# a comment = 1
port = 80

origins = [   # several lines
  "a",
  # and = "this"
  "b",
]
inline = {one = 1, two = {three = 3}}
"quoted.name" = """
[not a table]
x = 1
"""
[hooks]
url = "u"
headers.more = 1
[[channels]]
pattern = "x"

[[channels]]  # the second
pattern = 'y'
  [api]
  [[api.keys]]
  name = "1"
  [[api.keys]]
  name = "2"
  [api.keys.deep]
  q = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("port",), 2),
        (("origins",), 4),
        (("origins", 1), 4),
        (("inline", "two", "three"), 9),
        (("quoted.name",), 10),
        (("hooks",), 14),
        (("hooks", "url"), 15),
        (("hooks", "headers", "more"), 16),
        (("channels",), 17),
        (("channels", 0, "pattern"), 18),
        (("channels", 1), 20),
        (("channels", 1, "pattern"), 21),
        (("api", "keys", 0, "name"), 24),
        (("api", "keys", 1), 25),
        (("api", "keys", 1, "deep", "q"), 28),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_each_value_has_the_line_where_its_statement_begins(path, line, newline):
    content, lines = parse(TEXT.replace("\n", newline))
    assert lines[path] == line
    value = content
    for step in path:
        value = value[step]  # it is there


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("port = ", 1, "Invalid value (column 8)"),
        ("a = 1\nb = 2\n[c\n", 3, "Expected ']' at the end of a table declaration (column 3)"),
        ("a = 1\na = 2\n", 2, "Cannot overwrite a value (column 6)"),
    ],
)
def test_what_is_not_toml_has_a_line_too(text, line, message):
    with pytest.raises(BadFile) as failed:
        parse(text)
    assert (failed.value.line, str(failed.value)) == (line, message)


names = st.text("abc", min_size=1, max_size=3)
values = st.sampled_from(["1", '"x = 1"', "'[y]'", '"""\n[z]\n"""', "[\n  1,\n  2,\n]", "{a = 1}"])
statements = st.one_of(
    st.builds("{} = {}".format, names, values),
    st.builds("[{}]".format, names),
    st.builds("[[{}]]".format, names),
    st.sampled_from(["", "# c", "   "]),
)


@given(st.lists(statements, max_size=12))
def test_every_value_of_any_file_has_a_line_that_names_it(parts):
    text = "\n".join(parts)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    content, lines = parse(text)
    for path in paths(content):
        assert path in lines
        name = next(step for step in reversed(path) if isinstance(step, str))
        assert name in text.split("\n")[lines[path] - 1]


def paths(value, path=()):
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, below in inner:
        yield from paths(below, (*path, step))
