from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict

from voiceforge.api.http.forms import Fields, body_schema, parse, query_parameters
from voiceforge.errors import InvalidRequest, UnsupportedOption


class Inner(BaseModel):
    kind: str
    size: float | None = None


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str | None = None
    flag: bool = False
    number: float | None = None
    colour: Literal["red", "green"] = "red"
    colours: list[Literal["red", "green"]] = []
    names: list[str] = []
    nested: Literal["auto"] | Inner | None = None


def read(*pairs: tuple[str, str]) -> Model:
    return parse(Model, Fields(pairs).as_input(Model))


@pytest.mark.parametrize("name", ["names", "names[]", "names[0]", "names[12]"])
def test_lists_come_under_any_spelling_of_their_name(name):
    assert read((name, "a"), (name, "b")).names == ["a", "b"]


def test_spellings_may_be_mixed_and_keep_their_order():
    assert read(("names[]", "a"), ("names", "b"), ("names[]", "c")).names == ["a", "b", "c"]


def test_a_list_of_one_is_a_list():
    assert read(("names", "a")).names == ["a"]


def test_the_last_value_of_a_single_field_counts():
    assert read(("name", "a"), ("name", "b")).name == "b"


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "1", "yes", "on"])
def test_flags_as_clients_write_them(text):
    assert read(("flag", text)).flag is True


@pytest.mark.parametrize("value", ["", "  "])
def test_empty_values_count_as_absent(value):
    assert read(("name", value), ("number", value), ("colour", value), ("names[]", value)) == Model()


def test_tables_come_as_bracketed_fields():
    made = read(("nested[kind]", "x"), ("nested[size]", "2.5"))
    assert made.nested == Inner(kind="x", size=2.5)


def test_a_word_where_a_table_could_be():
    assert read(("nested", "auto")).nested == "auto"


def test_a_word_and_a_table_at_once_do_not_crash():
    assert read(("nested", "auto"), ("nested[kind]", "x")).nested == "auto"


@pytest.mark.parametrize("name", ["colour", "colours[]"])
def test_a_value_outside_the_choices_lists_them(name):
    with pytest.raises(UnsupportedOption) as caught:
        read((name, "blue"))
    assert caught.value.choices == ("red", "green")
    assert caught.value.field == name.removesuffix("[]")
    assert "blue" in caught.value.message
    assert "red, green" in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"), [("number", "many"), ("number", "nan"), ("number", "inf"), ("flag", "perhaps")]
)
def test_a_value_of_the_wrong_type_names_its_field(name, value):
    with pytest.raises(InvalidRequest) as caught:
        read((name, value))
    assert caught.value.field == name


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UnsupportedOption) as caught:
        read(("colr", "red"))
    assert caught.value.field == "colr"
    assert set(caught.value.choices) == set(Model.model_fields)


def test_later_fields_replace_earlier_ones():
    merged = Fields([("name", "a"), ("flag", "1")]) + Fields([("name", "b")])
    assert parse(Model, merged.as_input(Model)) == Model(name="b", flag=True)


def test_schemas_document_the_file_first_and_what_is_required():
    schema = body_schema(Model, extra={"file": {"type": "string", "format": "binary"}}, required=("file",))
    assert next(iter(schema["properties"])) == "file"
    assert schema["required"] == ["file"]


def test_query_parameters_are_the_models_fields():
    assert [parameter["name"] for parameter in query_parameters(Model)] == list(Model.model_fields)
