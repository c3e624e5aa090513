"""Templates."""

from jinja2 import UndefinedError
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.templates import environment


class TemplateTests(SynchronousTestCase):
    """The environment that all templates share."""

    def test_values_are_escaped(self) -> None:
        """Markup in a value is text, in elements and in quoted attributes."""
        template = environment("govi_server.pages").from_string(
            "<p title=\"{{ text }}\" lang='{{ text }}'>{{ text }}</p>"
        )
        escaped = "&lt;b&gt;&amp;&#34;&#39;"
        self.assertEqual(template.render(text="<b>&\"'"), f"<p title=\"{escaped}\" lang='{escaped}'>{escaped}</p>")

    def test_missing_value_is_an_error(self) -> None:
        """A template that uses a value that it does not get fails, in place of showing nothing."""
        for source in ("{{ text }}", "{% if text %}{% endif %}", "{{ row.text }}"):
            template = environment("govi_server.pages").from_string(source)
            self.assertRaises(UndefinedError, template.render, row={})
