"""The configuration: its defaults, what wins over what, and what is said of what is wrong."""

import os
import tomllib
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import ConfigError
from govi_server.settings import Config, ModuleSettings, StatisticsSettings, parse_networks
from govi_server.settings_loader import load

# What is wrong, and what is said of it after the file's name.
WRONG = (
    # keys that are not there
    ("lisen = ['tcp:80']", "Object contains unknown field `lisen`"),
    ("[kv55]", "Object contains unknown field `kv55`"),
    ("[limits]\nanswer = 5", "limits: Object contains unknown field `answer`"),
    ("[cache]\nsize = 5", "cache: Object contains unknown field `size`"),
    ("[gateway]\nurl = ''", "gateway: Object contains unknown field `url`"),
    ("[breaker]\nopen = true", "breaker: Object contains unknown field `open`"),
    ("[statistics]\npath = ''", "statistics: Object contains unknown field `path`"),
    ("[modules.kv55]\nurl = ''", "modules.kv55: Object contains unknown field `url`"),
    # values of the wrong type
    ("listen = 8080", "listen: Expected `array`, got `int`"),
    ("listen = 'tcp:8080'", "listen: Expected `array`, got `str`"),
    ("listen = ['tcp:80', 8080]", "listen[1]: Expected `str`, got `int`"),
    ("limits = 13", "limits: Expected `object`, got `int`"),
    ("[limits]\nconnection = '13'", "limits.connection: Expected `float`, got `str`"),
    ("[limits]\nkeep_alive = [13]", "limits.keep_alive: Expected `float`, got `array`"),
    ("[limits]\ndrain = 13:00:00", "limits.drain: Expected `float`, got `time`"),
    ("[limits]\nhead = 1e4", "limits.head: Expected `int`, got `float`"),
    ("cache = [60, 300]", "cache: Expected `object`, got `array`"),
    ("[cache]\nfresh = true", "cache.fresh: Expected `float`, got `bool`"),
    ("[cache]\nentries = '1k'", "cache.entries: Expected `int`, got `str`"),
    ("[gateway]\nmessage = 1.5", "gateway.message: Expected `int`, got `float`"),
    ("[breaker]\nfailures = {}", "breaker.failures: Expected `int`, got `object`"),
    ("[statistics]\nfile = false", "statistics.file: Expected `str`, got `bool`"),
    ("modules = 'kv55'", "modules: Expected `object`, got `str`"),
    ("[[modules]]", "modules: Expected `object`, got `array`"),
    ("[modules]\nkv55 = 'demo'", "modules.kv55: Expected `object`, got `str`"),
    ("[modules.kv55]\nsource = 1", "modules.kv55.source: Expected `str`, got `int`"),
    ("[modules.kv55]\ngateway_url = 1", "modules.kv55.gateway_url: Expected `str`, got `int`"),
    ("[modules.kv55]\nsubscriber_id = 1", "modules.kv55.subscriber_id: Expected `str`, got `int`"),
    ("[modules.kv55]\ncallback = 8082", "modules.kv55.callback: Expected `str`, got `int`"),
    ("[modules.kv55]\nallow = '::1'", "modules.kv55.allow: Expected `array`, got `str`"),
    ("[modules.kv55]\nallow = [1]", "modules.kv55.allow[0]: Expected `str`, got `int`"),
    ("[modules.kv55]\nlicense = false", "modules.kv55.license: Expected `str`, got `bool`"),
    # numbers out of bounds
    ("[limits]\nconnection = 0", "limits.connection: Expected `float` > 0.0"),
    ("[limits]\nkeep_alive = -1", "limits.keep_alive: Expected `float` > 0.0"),
    ("[limits]\ndrain = inf", "limits.drain: Expected `float` <= 86400.0"),
    ("[limits]\nrequest_line = 255", "limits.request_line: Expected `int` >= 256"),
    ("[limits]\nhead = 0", "limits.head: Expected `int` >= 256"),
    ("[limits]\nbody = -1", "limits.body: Expected `int` >= 256"),
    ("[cache]\nfresh = nan", "cache.fresh: Expected `float` > 0.0"),
    ("[cache]\nstale = 86401", "cache.stale: Expected `float` <= 86400.0"),
    ("[cache]\nentries = 0", "cache.entries: Expected `int` >= 1"),
    ("[cache]\nentries = 1000000001", "cache.entries: Expected `int` <= 1000000000"),
    ("[cache]\nbytes = 255", "cache.bytes: Expected `int` >= 256"),
    ("[cache]\nbytes = 99999999999999999999", "cache.bytes: Expected `int` <= 1099511627776"),
    ("[gateway]\nanswer = 0", "gateway.answer: Expected `float` > 0.0"),
    ("[gateway]\nremembered = 0", "gateway.remembered: Expected `int` >= 1"),
    ("[breaker]\nfailures = 0", "breaker.failures: Expected `int` >= 1"),
    ("[breaker]\npause = 0.0", "breaker.pause: Expected `float` > 0.0"),
    ("[statistics]\nrotate = 1", "statistics.rotate: Expected `int` >= 256"),
    ("[statistics]\nkeep = 0", "statistics.keep: Expected `int` >= 1"),
    # other values
    ("listen = []", "listen is empty"),
    ("[modules.kv55]\nsource = 'govy'", "modules.kv55: source is none of demo, govi, kv78turbo: 'govy'"),
    ("[modules.kv55]\ngateway_url = ''", "modules.kv55: gateway_url is not an http address: ''"),
    ("[modules.kv55]\ngateway_url = 'govi'", "modules.kv55: gateway_url is not an http address: 'govi'"),
    ("[modules.kv55]\ngateway_url = 'ftp://a/'", "modules.kv55: gateway_url is not an http address: 'ftp://a/'"),
    ("[modules.kv55]\ngateway_url = 'http:///a'", "modules.kv55: gateway_url is not an http address: 'http:///a'"),
    ("[modules.kv55]\ngateway_url = 'http://é/'", "modules.kv55: gateway_url is not an http address: 'http://é/'"),
    (
        "[modules.kv55]\nallow = ['::1', 'localhost']",
        "modules.kv55: allow: 'localhost' does not appear to be an IPv4 or IPv6 network",
    ),
    ("[modules.kv55]\nallow = ['10.0.0.1/8']", "modules.kv55: allow: 10.0.0.1/8 has host bits set"),
    # names of modules, which are path segments
    ("[modules.'kv55/x']", "modules: 'kv55/x' is not a path segment of letters, digits and hyphens"),
    ("[modules.'']", "modules: '' is not a path segment of letters, digits and hyphens"),
    ("[modules.kv_55]", "modules: 'kv_55' is not a path segment of letters, digits and hyphens"),
    ("[modules.'..']", "modules: '..' is not a path segment of letters, digits and hyphens"),
    ("[modules.'é']", "modules: 'é' is not a path segment of letters, digits and hyphens"),
    ('[modules."a\\nb"]', "modules: 'a\\nb' is not a path segment of letters, digits and hyphens"),
    # which of several modules
    ("[modules.kv55]\n[modules.b]\nsource = 1", "modules.b.source: Expected `str`, got `int`"),
    ("[modules.b]\nsource = 1\n[modules.a]\nx = 1", "modules.b.source: Expected `str`, got `int`"),
    ("[modules]\nb = 5\nkv55 = {}", "modules.b: Expected `object`, got `int`"),
    # settings that do not go together
    (
        "[gateway]\nanswer = 13",
        "gateway.answer (13 s) must be below limits.connection (13 s), or clients get a 406 where a 504 is due",
    ),
    (
        "[limits]\nconnection = 9.5",
        "gateway.answer (10 s) must be below limits.connection (9.5 s), or clients get a 406 where a 504 is due",
    ),
    # the live feed
    ("[feed]\nurl = ''", "feed: Object contains unknown field `url`"),
    ("[feed]\naddresses = 'tcp://x:1'", "feed.addresses: Expected `array`, got `str`"),
    ("[feed]\ntimetable = 5", "feed.timetable: Expected `str`, got `int`"),
    (
        "[modules.kv55]\nsource = 'kv78turbo'\n[feed]\naddresses = []",
        "feed.addresses is empty, and there is no feed.timetable either",
    ),
    ("[feed.passtimes]\nstops = 0", "feed.passtimes.stops: Expected `int` >= 1"),
    ("[feed.subscriber]\nsilence = 0", "feed.subscriber.silence: Expected `float` > 0.0"),
    ("[feed.planning]\nplanned = 0", "feed.planning.planned: Expected `int` >= 1"),
    ("[feed.limits]\nmessage = 1", "feed.limits.message: Expected `int` >= 256"),
    (
        "[feed.limits]\nstale = 59",
        "feed: limits.stale must not be below limits.fresh: a stale board is the older one",
    ),
    (
        "[modules.kv55]\nsource = 'kv78turbo'\ngateway_url = 'http://x/'",
        "modules.kv55: gateway_url goes with source govi, not with kv78turbo",
    ),
    ("[cache]\nstale = 59", "cache.stale must not be below cache.fresh: a stale board is the older one"),
    ("[cache]\nfresh = 301", "cache.stale must not be below cache.fresh: a stale board is the older one"),
)


class ConfigTestCase(SynchronousTestCase):
    """Configurations that are written to a file and read from it."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "govi-cache.toml")

    def load(self, toml: str | bytes, options: Mapping[str, Any] | None = None) -> Config:
        """Read a configuration file and options."""
        with open(self.path, "wb") as file:
            file.write(toml if isinstance(toml, bytes) else toml.encode())
        return load(self.path, options or {})

    def error(self, toml: str | bytes, options: Mapping[str, Any] | None = None) -> str:
        """Give what is said of a configuration that is wrong."""
        with self.assertRaises(ConfigError) as caught:
            self.load(toml, options)
        return str(caught.exception)


class LoadTests(ConfigTestCase):
    """What a configuration comes to."""

    def test_defaults(self) -> None:
        """Without a file and options everything is as documented."""
        config = load(None, {})
        self.assertEqual(config, Config())
        self.assertEqual(config.listen, ("tcp:8080",))
        self.assertEqual(config.statistics, StatisticsSettings(file="", rotate=100 << 20, keep=10))
        self.assertEqual(list(config.modules), ["kv55"])
        kv55 = config.modules["kv55"]
        self.assertEqual(kv55.source, "demo")
        self.assertEqual(kv55.callback, "tcp:8082:interface=127.0.0.1")
        self.assertEqual(kv55.gateway_url, "http://drisacc.transmodel.nl/TMI_Post/KV55/openOV")
        self.assertEqual(kv55.subscriber_id, "openOV")
        self.assertEqual(kv55.license, "")
        self.assertFalse(config.is_live)
        self.assertEqual(config.feed.addresses, ("tcp://pubsub.besteffort.ndovloket.nl:7817",))
        self.assertEqual(config.feed.timetable, "")
        self.assertEqual([str(network) for network in parse_networks(kv55.allow)], ["127.0.0.0/8", "::1/128"])

    def test_default_limits(self) -> None:
        """The deadlines and ages are those of the promise: 13 s, 10 s, a minute, five minutes."""
        config = load(None, {})
        self.assertEqual((config.limits.connection, config.limits.keep_alive, config.limits.drain), (13, 13, 13))
        self.assertEqual(config.gateway.answer, 10)
        self.assertEqual((config.cache.fresh, config.cache.stale), (60, 300))
        self.assertEqual((config.breaker.failures, config.breaker.pause), (10, 5))

    def test_empty_file(self) -> None:
        """A file that says nothing changes nothing."""
        for toml in ("", "# nothing\n", "[modules.kv55]\n[cache]\n[limits]\n"):
            self.assertEqual(self.load(toml), Config())

    def test_file(self) -> None:
        """What the file says is taken, and what it does not say is as before."""
        config = self.load("""
            listen = ["tcp:80", "unix:/run/govi"]
            [cache]
            fresh = 30
            [limits]
            connection = 12.5
            [modules.kv55]
            source = "govi"
            gateway_url = "https://localhost:8443/post"
            allow = ["10.0.0.0/8"]
            [statistics]
            file = "statistics.log"
        """)
        self.assertEqual(config.listen, ("tcp:80", "unix:/run/govi"))
        self.assertEqual((config.cache.fresh, config.cache.stale), (30, 300))
        self.assertEqual((config.limits.connection, config.limits.drain), (12.5, 13))
        self.assertEqual(config.statistics, StatisticsSettings(file="statistics.log"))
        self.assertEqual(
            config.modules["kv55"],
            ModuleSettings(source="govi", gateway_url="https://localhost:8443/post", allow=("10.0.0.0/8",)),
        )

    def test_options_over_file(self) -> None:
        """Options win over the file, key by key, and the file over the defaults."""
        config = self.load(
            """
            listen = ["tcp:80"]
            [modules.kv55]
            source = "demo"
            subscriber_id = "us"
            [modules.other]
            callback = "tcp:1"
            license = "none"
            [statistics]
            file = "a.log"
            keep = 5
            """,
            {
                "listen": ["tcp:81", "tcp:82"],
                "modules": {"kv55": {"source": "govi", "gateway_url": "http://localhost:8083/"}},
                "statistics": {"file": "b.log"},
            },
        )
        self.assertEqual(config.listen, ("tcp:81", "tcp:82"))
        self.assertEqual(config.statistics, StatisticsSettings(file="b.log", keep=5))
        self.assertEqual(
            config.modules,
            {
                "kv55": ModuleSettings(source="govi", gateway_url="http://localhost:8083/", subscriber_id="us"),
                "other": ModuleSettings(callback="tcp:1", license="none"),
            },
        )

    def test_options_without_file(self) -> None:
        """Options win over the defaults."""
        config = load(None, {"modules": {"kv55": {"callback": "tcp:0"}}, "statistics": {"file": "a.log"}})
        self.assertEqual(config.modules, {"kv55": ModuleSettings(callback="tcp:0")})
        self.assertEqual(config.statistics.file, "a.log")

    def test_second_module(self) -> None:
        """What modules a file names are those there are: a demo beside the real thing would be made-up departures."""
        arriva = ModuleSettings(source="govi", callback="tcp:8084")
        for kv55, modules in (("", {}), ("[modules.kv55]\n", {"kv55": ModuleSettings()})):
            config = self.load(f'{kv55}[modules.arriva]\nsource = "govi"\ncallback = "tcp:8084"\n')
            self.assertEqual(config.modules, {**modules, "arriva": arriva})

    def test_module_names(self) -> None:
        """A module's name is a path segment of letters, digits and hyphens."""
        for name in ("a", "5", "KV55", "kv55-test"):
            self.assertIn(name, self.load(f"[modules.{name}]\ncallback = 'tcp:1'").modules)

    def test_bounds(self) -> None:
        """The smallest and largest numbers that may be are taken."""
        config = self.load("""
            [cache]
            fresh = 0.001
            stale = 86400
            entries = 1
            bytes = 256
            [limits]
            body = 1099511627776
            connection = 10.001
            [breaker]
            failures = 1000000000
        """)
        self.assertEqual((config.cache.fresh, config.cache.stale), (0.001, 86400))
        self.assertEqual((config.cache.entries, config.cache.bytes), (1, 256))
        self.assertEqual(config.limits.body, 1 << 40)
        self.assertEqual(config.breaker.failures, 10**9)

    def test_live(self) -> None:
        """Modules of the live feed share it, need no callback of their own, and may do with a timetable alone."""
        config = self.load("""
            [modules.kv55]
            source = "kv78turbo"
            [modules.other]
            source = "kv78turbo"
            [feed]
            addresses = []
            timetable = "kv7"
        """)
        self.assertTrue(config.is_live)
        self.assertEqual((config.feed.addresses, config.feed.timetable), ((), "kv7"))
        self.assertFalse(self.load("[modules.tpc]\nsource = 'govi'").is_live)

    def test_fresh_is_all(self) -> None:
        """A cache that serves nothing stale may be asked for."""
        self.assertEqual(self.load("[cache]\nfresh = 60\nstale = 60").cache.stale, 60)

    def test_loads_are_apart(self) -> None:
        """What one configuration says is not in the next one."""
        self.load("[modules.arriva]\ncallback = 'tcp:1'\n[modules.kv55]\nsource = 'govi'")
        self.assertEqual(load(None, {}), Config())
        self.assertEqual(list(Config().modules), ["kv55"])


class ErrorTests(ConfigTestCase):
    """What is said of a configuration that is wrong: one line, that names the file and the key."""

    def test_wrong(self) -> None:
        """Whatever is wrong in the file, the line says where and what."""
        for toml, said in WRONG:
            self.assertEqual(self.error(toml), f"{self.path}: {said}", toml)
            self.assertNotIn("\n", said)

    def test_callbacks(self) -> None:
        """Two modules cannot have one callback endpoint, the default one least of all."""
        taken = "tcp:8082:interface=127.0.0.1"
        self.assertEqual(
            self.error("[modules.arriva]\n[modules.kv55]"),
            f"{self.path}: modules.kv55.callback: {taken} is the one of modules.arriva already",
        )

    def test_urls(self) -> None:
        """A gateway's address is checked to its port."""
        for url in (
            "http://[bad",
            "http://x:99999/",
            "http://x:abc/",
            "http://x y/",
            "http://x/\nfoo",
            "http://x:0/",
        ):
            self.assertIn(
                "gateway_url is not an http address",
                self.error("", {"modules": {"kv55": {"source": "govi", "gateway_url": url}}}),
            )

    def test_demo(self) -> None:
        """The demo has its own gateway, which has to reach the callback endpoint."""
        said = self.error("", {"modules": {"kv55": {"gateway_url": "http://localhost/"}}})
        self.assertIn("gateway_url goes with source govi", said)
        self.assertIn(
            "callback must be a tcp endpoint", self.error("", {"modules": {"kv55": {"callback": "unix:/x"}}})
        )

    def test_one_line(self) -> None:
        """Whatever a file holds, what is said of it is one line."""
        self.assertNotIn("\n", self.error('"a\\nb" = 1'))
        self.assertIn("not TOML", self.error("a = " + "[" * 5000))

    def test_options(self) -> None:
        """What is wrong in the options is not said of the file."""
        options: tuple[tuple[dict[str, Any], str], ...] = (
            ({"modules": {"kv55": {"source": "x"}}}, "modules.kv55: source is none of demo, govi, kv78turbo: 'x'"),
            (
                {"modules": {"kv55": {"gateway_url": "x"}}},
                "modules.kv55: gateway_url is not an http address: 'x'",
            ),
            ({"listen": []}, "listen is empty"),
        )
        for wrong, said in options:
            self.assertEqual(self.error("[cache]", wrong), f"options: {said}")
            with self.assertRaises(ConfigError) as caught:
                load(None, wrong)
            self.assertEqual(str(caught.exception), f"options: {said}")

    def test_file_first(self) -> None:
        """What is wrong in the file is said, even where an option wins over it."""
        said = self.error("listen = 5", {"listen": ["tcp:80"]})
        self.assertEqual(said, f"{self.path}: listen: Expected `array`, got `int`")

    def test_not_there(self) -> None:
        """A file that cannot be opened is named with the reason."""
        directory = os.path.dirname(self.path)
        for path, said in (
            (self.path, "No such file or directory"),
            (os.path.join(self.path, "x"), "No such file or directory"),
            (directory, "Is a directory"),
        ):
            with self.assertRaises(ConfigError) as caught:
                load(path, {})
            self.assertEqual(str(caught.exception), f"{path}: {said}")

    def test_not_toml(self) -> None:
        """A file that is no TOML is named, and where it goes wrong."""
        for toml, where in (("listen = [\n'a'\n'b']", "line 3"), ("[cache]\n[cache]", "line 2"), ("a = 1\nb =", "")):
            said = self.error(toml)
            self.assertTrue(said.startswith(f"{self.path}: not TOML: "), said)
            self.assertIn(where, said)
            self.assertNotIn("\n", said)

    def test_not_utf_8(self) -> None:
        """A file of bytes that are no UTF-8 is named, and where they are."""
        said = self.error(b"# caf\xe9\n")
        self.assertTrue(said.startswith(f"{self.path}: not TOML: 'utf-8' codec can't decode byte 0xe9 in position 5"))
        self.assertNotIn("\n", said)


class FileTests(SynchronousTestCase):
    """etc/govi-cache.toml, which describes the configuration."""

    def test_defaults(self) -> None:
        """It has every key there is, with the default as its value."""
        path = os.path.join(os.path.dirname(__file__), "..", "etc", "govi-cache.toml")
        self.assertEqual(load(path, {}), Config())
        with open(path, "rb") as file:
            self.assertEqual(keys(tomllib.load(file)), keys(msgspec.to_builtins(Config())))


def keys(settings: object) -> object:
    """Give what keys there are, table by table."""
    return {key: keys(value) for key, value in settings.items()} if isinstance(settings, dict) else None
