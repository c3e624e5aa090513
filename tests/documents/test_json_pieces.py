"""JSON objects in pieces."""

import json

from twisted.trial.unittest import SynchronousTestCase

from govi_server.documents.json_pieces import json_object


class JsonObjectTests(SynchronousTestCase):
    """Objects of any number of members."""

    def test_pieces_are_an_object(self) -> None:
        """The pieces are a JSON object with the members in order; each step without a member is a piece."""
        for n in (0, 1, 2, 3000):
            members = {f'"{i}"': i for i in range(n)}
            steps = [step for key, i in members.items() for step in ((key, b"%d" % i), None)]
            pieces = [*json_object(steps)]
            self.assertEqual(list(json.loads(b"".join(pieces)).items()), list(members.items()))
            self.assertGreaterEqual(len(pieces), n)
