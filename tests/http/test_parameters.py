"""Parameters: their schemas, and parsing."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.parameters import (
    MAX_QUERY_FIELDS,
    Enum,
    Integer,
    InvalidParameter,
    Number,
    Parameter,
    String,
    parse_query,
)


class ParameterTests(SynchronousTestCase):
    """Parameters and query strings."""

    @given(
        st.text(), st.sampled_from([Integer("x", 1, 50), Number(-90, 90), Enum(("1", "2")), String(5, "[0-9]+", 1)])
    )
    def test_parsed_values_are_valid_by_the_schema(self, text: str, parameter_type: Any) -> None:
        """A parsed value is valid by the schema; other text raises InvalidParameter, which names the parameter."""
        parameter = Parameter("x", parameter_type, "")
        try:
            value = parameter.parse({"x": text})
        except InvalidParameter as error:
            self.assertEqual(str(error), f"x must be {parameter_type}")
        else:
            Draft202012Validator(parameter_type.schema).validate(value)

    def test_missing_parameter_is_none_or_an_error(self) -> None:
        """A missing parameter is None, or an error if it is required."""
        self.assertIsNone(Parameter("x", String(), "").parse({}))
        error = self.assertRaises(InvalidParameter, Parameter("x", String(), "", required=True).parse, {})
        self.assertEqual(str(error), "x is missing: it must be text")

    def test_number_of_parameters_is_bounded(self) -> None:
        """A query string with more than MAX_QUERY_FIELDS parameters is invalid."""
        self.assertEqual(len(parse_query("&".join(f"{n}=" for n in range(MAX_QUERY_FIELDS)))), MAX_QUERY_FIELDS)
        error = self.assertRaises(InvalidParameter, parse_query, "&" * MAX_QUERY_FIELDS)
        self.assertEqual(str(error), "The query string must have at most 100 parameters")

    def test_text_of_each_type(self) -> None:
        """The text of a type describes its values, and follows "must be" in an error."""
        for parameter_type, text in [
            (Enum(("1",)), "1"),
            (Enum(("1", "2", "3")), "1, 2 or 3"),
            (Integer("minutes", 1, 60), "a number of minutes from 1 to 60"),
            (Number(-90, 90), "a number of degrees from -90 to 90"),
            (String(100, min_length=1), "text of 1 to 100 characters"),
            (String(10, "[0-9]+", name="a code of digits"), "a code of digits"),
        ]:
            self.assertEqual(str(parameter_type), text)

    @given(st.text(st.characters(min_codepoint=33, max_codepoint=126)))
    def test_any_query_string(self, query: str) -> None:
        """Any query string is parsed, or raises InvalidParameter with a text."""
        try:
            self.assertIsInstance(parse_query(query), dict)
        except InvalidParameter as error:
            self.assertTrue(str(error))
