"""Templates."""

from jinja2 import UndefinedError
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.templates import environment


class TemplateTests(SynchronousTestCase):
    """The environment of all templates."""

    def test_values_are_escaped(self) -> None:
        """Markup in a value is text, in elements and in quoted attributes."""
        template = environment("govi_server.pages").from_string(
            "<p title=\"{{ text }}\" lang='{{ text }}'>{{ text }}</p>"
        )
        escaped = "&lt;b&gt;&amp;&#34;&#39;"
        self.assertEqual(template.render(text="<b>&\"'"), f"<p title=\"{escaped}\" lang='{escaped}'>{escaped}</p>")

    def test_missing_value_is_an_error(self) -> None:
        """A template raises an error for a missing value instead of rendering an empty string."""
        for source in ("{{ text }}", "{% if text %}{% endif %}", "{{ row.text }}"):
            template = environment("govi_server.pages").from_string(source)
            self.assertRaises(UndefinedError, template.render, row={})
