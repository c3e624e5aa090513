"""Tests of the configuration: defaults, precedence, and errors."""

import os
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import ConfigError
from govi_server.settings import Config, ModuleSettings, StatisticsSettings, parse_networks
from govi_server.settings_loader import SETTINGS, load, load_valid
from tests import configuration

SECONDS = "a number of seconds above 0, at most 86400"
BYTES = "a whole number of bytes from 256 to 1099511627776"
COUNT = "a whole number from 1 to 1000000000"
PATH_SEGMENT = "letters, digits and hyphens"

# Invalid files, and their errors after the file's name.
INVALID = (
    # unknown keys
    ("lisen = ['tcp:80']", "lisen: unknown setting; did you mean 'listen'?"),
    ("[chache]\nfresh = 30", "chache: unknown setting; did you mean 'cache'?"),
    ("[kv55]", "kv55: unknown setting; did you mean 'modules.kv55'?"),
    ("[limits]\nanswer = 5", "limits.answer: unknown setting; did you mean 'gateway.answer'?"),
    ("[limits]\nfresh = 5", "limits.fresh: unknown setting; did you mean 'cache.fresh' or 'feed.limits.fresh'?"),
    ("[cache]\nsize = 5", "cache.size: unknown setting (expected fresh, stale, entries, bytes or flights)"),
    ("[cache]\nfrehs = 30", "cache.frehs: unknown setting; did you mean 'cache.fresh'?"),
    ("[gateway]\nuri = ''", "gateway.uri: unknown setting (expected answer, message or remembered)"),
    ("[breaker]\nopen = true", "breaker.open: unknown setting (expected failures or pause)"),
    ("[statistics]\npath = ''", "statistics.path: unknown setting (expected file, rotate or keep)"),
    ("[modules.kv55]\nurl = ''", "modules.kv55.url: unknown setting; did you mean 'modules.kv55.gateway_url'?"),
    ("[share]\nurl = 'http://:secret@x'", "share.url: invalid URL (expected a string such as 'redis://host:6379/0')"),
    (
        "[share]\nurl = 'redis://x'\n[modules.kv55]\nsource = 'kv78turbo'",
        "share.url: not used by source 'kv78turbo' (expected source 'govi')",
    ),
    ("[share]\nprefix = 'a b'", "share.prefix: invalid prefix 'a b' (expected a string such as 'govi-cache')"),
    ("[modules.b]\nsorce = 'govi'", "modules.b.sorce: unknown setting; did you mean 'modules.b.source'?"),
    # values of the wrong type
    ("listen = 8080", "listen: invalid value 8080 (expected an array of endpoints)"),
    (
        "listen = 'tcp:8080'",
        "listen: invalid value 'tcp:8080' (expected an array of endpoints); did you mean ['tcp:8080']?",
    ),
    ("listen = ['tcp:80', 8080]", "listen[1]: invalid endpoint 8080; did you mean 'tcp:8080'?"),
    ("listen = ['9000']", "listen[0]: invalid endpoint '9000'; did you mean 'tcp:9000'?"),
    (
        "listen = ['127.0.0.1:9000']",
        "listen[0]: invalid endpoint '127.0.0.1:9000'; did you mean 'tcp:9000:interface=127.0.0.1'?",
    ),
    ("listen = ['/run/govi']", "listen[0]: invalid endpoint '/run/govi'; did you mean 'unix:/run/govi'?"),
    ("listen = ['']", "listen[0]: invalid endpoint '' (expected a string such as 'tcp:8080')"),
    ("[admin]\nlisten = '8081'", "admin.listen: invalid endpoint '8081'; did you mean 'tcp:8081'?"),
    ("limits = 13", "limits: invalid value 13 (expected a table)"),
    ("[limits]\nconnection = '13'", f"limits.connection: invalid value '13' (expected {SECONDS}); did you mean 13?"),
    ("[limits]\nkeep_alive = [13]", f"limits.keep_alive: invalid value [13] (expected {SECONDS})"),
    ("[limits]\ndrain = 13:00:00", f"limits.drain: invalid value 13:00:00 (expected {SECONDS})"),
    ("[limits]\nhead = 1e4", f"limits.head: invalid value 10000.0 (expected {BYTES}); did you mean 10000?"),
    ("cache = [60, 300]", "cache: invalid value [60, 300] (expected a table)"),
    ("[cache]\nfresh = true", f"cache.fresh: invalid value true (expected {SECONDS})"),
    (
        "[access]\nheader = 'X-Real-IP'",
        "access.header: invalid value 'X-Real-IP' (expected 'X-Forwarded-For', 'Forwarded' or '')",
    ),
    (
        "[access]\nheader = 'x-forwarded-for'",
        "access.header: invalid value 'x-forwarded-for' (expected "
        "'X-Forwarded-For', 'Forwarded' or ''); did you mean 'X-Forwarded-For'?",
    ),
    (
        "[access]\nheader = ['Forwarded']",
        "access.header: invalid value ['Forwarded'] (expected 'X-Forwarded-For', 'Forwarded' or ''); did you mean "
        "'Forwarded'?",
    ),
    ("[access]\nheader = 1", "access.header: invalid value 1 (expected 'X-Forwarded-For', 'Forwarded' or '')"),
    (
        "[admin]\nhosts = 'a.example'",
        "admin.hosts: invalid value 'a.example' (expected an array of hosts); did you mean ['a.example']?",
    ),
    (
        "[admin]\nhosts = ['a.example:8081']",
        "admin.hosts[0]: invalid host 'a.example:8081'; did you mean 'a.example'?",
    ),
    (
        "[admin]\nhosts = ['http://a.example/']",
        "admin.hosts[0]: invalid host 'http://a.example/'; did you mean 'a.example'?",
    ),
    ("[admin]\nhosts = ['*']", "admin.hosts[0]: invalid host '*' (expected a string such as 'status.example.org')"),
    ("[cache]\nentries = '1k'", f"cache.entries: invalid value '1k' (expected {COUNT})"),
    ("[gateway]\nmessage = 1.5", f"gateway.message: invalid value 1.5 (expected {BYTES})"),
    ("[breaker]\nfailures = {}", f"breaker.failures: invalid value {{}} (expected {COUNT})"),
    (
        "[statistics]\nfile = false",
        "statistics.file: invalid value false (expected a string without control characters)",
    ),
    ("modules = 'kv55'", "modules: invalid value 'kv55' (expected a table)"),
    ("[[modules]]", "modules: invalid value [{}] (expected a table)"),
    ("[modules]\nkv55 = 'demo'", "modules.kv55: invalid value 'demo' (expected a table)"),
    ("[modules.kv55]\nsource = 1", "modules.kv55.source: invalid value 1 (expected demo, govi or kv78turbo)"),
    (
        "[modules.kv55]\ngateway_url = 1",
        "modules.kv55.gateway_url: invalid URL 1 (expected a string such as 'http://localhost:8083/')",
    ),
    (
        "[modules.kv55]\nsubscriber_id = 1",
        "modules.kv55.subscriber_id: invalid value 1 (expected a string without control characters)",
    ),
    ("[modules.kv55]\ncallback = 8082", "modules.kv55.callback: invalid endpoint 8082; did you mean 'tcp:8082'?"),
    (
        "[modules.kv55]\nallow = '::1'",
        "modules.kv55.allow: invalid value '::1' (expected an array of networks); did you mean ['::1']?",
    ),
    (
        "[modules.kv55]\nallow = [1]",
        "modules.kv55.allow[0]: invalid network 1 (expected a string such as '192.0.2.0/24')",
    ),
    (
        "[modules.kv55]\nlicense = false",
        "modules.kv55.license: invalid value false (expected a string without control characters)",
    ),
    # numbers out of bounds
    ("[limits]\nconnection = 0", f"limits.connection: invalid value 0 (expected {SECONDS})"),
    ("[limits]\nkeep_alive = -1", f"limits.keep_alive: invalid value -1 (expected {SECONDS})"),
    ("[limits]\ndrain = inf", f"limits.drain: invalid value inf (expected {SECONDS})"),
    ("[limits]\nrequest_line = 255", f"limits.request_line: invalid value 255 (expected {BYTES})"),
    ("[limits]\nhead = 0", f"limits.head: invalid value 0 (expected {BYTES})"),
    ("[limits]\nbody = -1", f"limits.body: invalid value -1 (expected {BYTES})"),
    ("[cache]\nfresh = nan", f"cache.fresh: invalid value nan (expected {SECONDS})"),
    ("[cache]\nstale = 86401", f"cache.stale: invalid value 86401 (expected {SECONDS})"),
    ("[cache]\nentries = 0", f"cache.entries: invalid value 0 (expected {COUNT})"),
    ("[cache]\nentries = 1000000001", f"cache.entries: invalid value 1000000001 (expected {COUNT})"),
    ("[cache]\nbytes = 255", f"cache.bytes: invalid value 255 (expected {BYTES})"),
    ("[cache]\nbytes = 99999999999999999999", f"cache.bytes: invalid value 99999999999999999999 (expected {BYTES})"),
    ("[gateway]\nanswer = 0", f"gateway.answer: invalid value 0 (expected {SECONDS})"),
    ("[gateway]\nremembered = 0", f"gateway.remembered: invalid value 0 (expected {COUNT})"),
    ("[breaker]\nfailures = 0", f"breaker.failures: invalid value 0 (expected {COUNT})"),
    ("[breaker]\npause = 0.0", f"breaker.pause: invalid value 0.0 (expected {SECONDS})"),
    ("[statistics]\nrotate = 1", f"statistics.rotate: invalid value 1 (expected {BYTES})"),
    ("[statistics]\nkeep = 0", f"statistics.keep: invalid value 0 (expected {COUNT})"),
    # other invalid values
    ("listen = []", "listen: invalid value [] (expected at least one endpoint)"),
    (
        "[modules.kv55]\nsource = 'govy'",
        "modules.kv55.source: invalid value 'govy' (expected demo, govi or kv78turbo); did you mean 'govi'?",
    ),
    (
        "[modules.kv55]\nsource = 'gtfs'",
        "modules.kv55.source: invalid value 'gtfs' (expected demo, govi or kv78turbo)",
    ),
    (
        "[modules.kv55]\nsource = 'GOVI'",
        "modules.kv55.source: invalid value 'GOVI' (expected demo, govi or kv78turbo); did you mean 'govi'?",
    ),
    (
        "[modules.kv55]\ngateway_url = ''",
        "modules.kv55.gateway_url: invalid URL '' (expected a string such as 'http://localhost:8083/')",
    ),
    (
        "[modules.kv55]\ngateway_url = 'govi'",
        "modules.kv55.gateway_url: invalid URL 'govi'; did you mean 'http://govi'?",
    ),
    (
        "[modules.kv55]\ngateway_url = 'ftp://a/'",
        "modules.kv55.gateway_url: invalid URL 'ftp://a/'; did you mean 'http://a/'?",
    ),
    (
        "[modules.kv55]\ngateway_url = 'http:///a'",
        "modules.kv55.gateway_url: invalid URL 'http:///a' (expected a string such as 'http://localhost:8083/')",
    ),
    (
        "[modules.kv55]\ngateway_url = 'http://é/'",
        "modules.kv55.gateway_url: invalid URL 'http://é/' (expected a string such as 'http://localhost:8083/')",
    ),
    (
        "[modules.kv55]\nallow = ['::1', 'localhost']",
        "modules.kv55.allow[1]: invalid network 'localhost' (expected a string such as '192.0.2.0/24')",
    ),
    (
        "[modules.kv55]\nallow = ['10.0.0.1/8']",
        "modules.kv55.allow[0]: invalid network '10.0.0.1/8'; did you mean '10.0.0.0/8'?",
    ),
    # module names that are not path segments
    ("[modules.'kv55/x']", f"modules.'kv55/x': invalid name (expected {PATH_SEGMENT})"),
    ("[modules.'']", f"modules.'': invalid name (expected {PATH_SEGMENT})"),
    ("[modules.kv_55]", f"modules.kv_55: invalid name (expected {PATH_SEGMENT})"),
    ("[modules.'..']", f"modules.'..': invalid name (expected {PATH_SEGMENT})"),
    ("[modules.'é']", f"modules.'é': invalid name (expected {PATH_SEGMENT})"),
    ('[modules."a\\nb"]', f"modules.'a\\nb': invalid name (expected {PATH_SEGMENT})"),
    # one of several modules
    (
        "[modules.kv55]\n[modules.b]\nsource = 1",
        "modules.b.source: invalid value 1 (expected demo, govi or kv78turbo)",
    ),
    (
        "[modules.b]\nsource = 1\n[modules.a]\nx = 1",
        "modules.b.source: invalid value 1 (expected demo, govi or kv78turbo)",
    ),
    ("[modules]\nb = 5\nkv55 = {}", "modules.b: invalid value 5 (expected a table)"),
    # settings that contradict others
    (
        "[gateway]\nanswer = 13",
        "gateway.answer: 13 is too large: it must be below limits.connection (13), "
        "so that clients get a 504, not a 406",
    ),
    (
        "[limits]\nconnection = 9.5",
        "gateway.answer: 10 is too large: it must be below limits.connection (9.5), "
        "so that clients get a 504, not a 406",
    ),
    # the live feed
    (
        "[feed]\nuri = ''",
        "feed.uri: unknown setting (expected addresses, timetable, gtfs, contact, limits, subscriber, passtimes, "
        "cache or planning)",
    ),
    (
        "[feed]\naddresses = 'tcp://x:1'",
        "feed.addresses: invalid value 'tcp://x:1' (expected an array of feed addresses); did you mean ['tcp://x:1']?",
    ),
    ("[feed]\naddresses = ['x:1']", "feed.addresses[0]: invalid feed address 'x:1'; did you mean 'tcp://x:1'?"),
    ("[feed]\ntimetable = 5", "feed.timetable: invalid value 5 (expected a string without control characters)"),
    (
        "[modules.kv55]\nsource = 'kv78turbo'\n[feed]\naddresses = []\ngtfs = ''",
        "feed.addresses: invalid value [] (expected a feed address, feed.timetable or feed.gtfs)",
    ),
    ("[feed.passtimes]\nstops = 0", f"feed.passtimes.stops: invalid value 0 (expected {COUNT})"),
    ("[feed.subscriber]\nqueue = 0", f"feed.subscriber.queue: invalid value 0 (expected {COUNT})"),
    (
        "[feed.subscriber]\nsilense = 60",
        "feed.subscriber.silense: unknown setting; did you mean 'feed.subscriber.silence'?",
    ),
    ("[feed.subscriber]\nsilence = 0", f"feed.subscriber.silence: invalid value 0 (expected {SECONDS})"),
    ("[feed.planning]\nplanned = 0", f"feed.planning.planned: invalid value 0 (expected {COUNT})"),
    ("[feed.limits]\nmessage = 1", f"feed.limits.message: invalid value 1 (expected {BYTES})"),
    ("[feed.limits]\nstale = 59", "feed.limits.stale: invalid value 59 (expected at least feed.limits.fresh, 60)"),
    (
        "[modules.kv55]\nsource = 'kv78turbo'\ngateway_url = 'http://x/'",
        "modules.kv55.gateway_url: not used by source 'kv78turbo' (expected source 'govi')",
    ),
    ("[cache]\nstale = 59", "cache.stale: invalid value 59 (expected at least cache.fresh, 60)"),
    ("[cache]\nfresh = 301", "cache.stale: invalid value 300 (expected at least cache.fresh, 301)"),
)


class ConfigTestCase(SynchronousTestCase):
    """A test case that has a configuration file."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "govi-cache.toml")

    def load(self, toml: str | bytes, options: Mapping[str, Any] | None = None) -> Config:
        """Write a configuration file; load it with these options. Only a source may be missing."""
        self.write(toml)
        config, problems, _ = load_valid(self.path, options or {})
        self.assertEqual([problem for problem in problems if "no source" not in problem.text], [])
        return config

    def write(self, toml: str | bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(toml if isinstance(toml, bytes) else toml.encode())

    def error(self, toml: str | bytes, options: Mapping[str, Any] | None = None) -> str:
        """Return the error of an invalid configuration."""
        self.write(toml)
        with self.assertRaises(ConfigError) as caught:
            load(self.path, options or {})
        return str(caught.exception).splitlines()[0]


class LoadTests(ConfigTestCase):
    """Tests of valid configurations."""

    def test_default_settings(self) -> None:
        """Without a file and options every setting has its documented default."""
        config = load_valid(None, {}).config
        self.assertEqual(config, Config())
        self.assertEqual(config.listen, ("tcp:8080",))
        self.assertEqual(config.statistics, StatisticsSettings(file="", rotate=100 << 20, keep=10))
        self.assertEqual(list(config.modules), ["kv55"])
        kv55 = config.modules["kv55"]
        self.assertEqual(kv55.source, "")
        self.assertEqual(kv55.callback, "tcp:8082:interface=127.0.0.1")
        self.assertEqual(kv55.gateway_url, "http://drisacc.transmodel.nl/TMI_Post/KV55/openOV")
        self.assertEqual(kv55.subscriber_id, "openOV")
        self.assertEqual(kv55.license, "")
        self.assertFalse(config.is_live)
        self.assertEqual(config.feed.addresses, ("tcp://pubsub.besteffort.ndovloket.nl:7817",))
        self.assertEqual(config.feed.timetable, "")
        self.assertEqual([str(network) for network in parse_networks(kv55.allow)], ["127.0.0.0/8", "::1/128"])

    def test_mapped_networks(self) -> None:
        """Networks of IPv4 addresses within IPv6 are IPv4 networks, as the addresses of clients are."""
        networks = parse_networks(
            ["::ffff:192.0.2.0/120", "::ffff:192.0.2.7", "::ffff:0:0/96", "::/0", "2001:db8::/96"]
        )
        self.assertEqual(
            [str(network) for network in networks],
            ["192.0.2.0/24", "192.0.2.7/32", "0.0.0.0/0", "::/0", "2001:db8::/96"],
        )

    def test_default_limits(self) -> None:
        """Deadlines and ages have the documented defaults."""
        config = load_valid(None, {}).config
        self.assertEqual((config.limits.connection, config.limits.keep_alive, config.limits.drain), (13, 13, 13))
        self.assertEqual(config.gateway.answer, 10)
        self.assertEqual((config.cache.fresh, config.cache.stale), (60, 300))
        self.assertEqual((config.breaker.failures, config.breaker.pause), (10, 5))

    def test_empty_file_changes_nothing(self) -> None:
        """A file without settings leaves all defaults."""
        for toml in ("", "# no settings\n", "[modules]\n", "[modules.kv55]\n[cache]\n[limits]\n"):
            self.assertEqual(self.load(toml), Config())

    def test_file_overrides_defaults(self) -> None:
        """Settings of the file override their defaults; other settings have their defaults."""
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

    def test_options_override_file(self) -> None:
        """Options override the file key by key; the file overrides the defaults."""
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
                "modules.kv55.source": "govi",
                "modules.kv55.gateway_url": "http://localhost:8083/",
                "statistics.file": "b.log",
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

    def test_options_override_defaults(self) -> None:
        """Without a file, options override the defaults."""
        config = load_valid(None, {"modules.kv55.callback": "tcp:0", "statistics.file": "a.log"}).config
        self.assertEqual(config.modules, {"kv55": ModuleSettings(callback="tcp:0")})
        self.assertEqual(config.statistics.file, "a.log")

    def test_modules_of_file_replace_default_module(self) -> None:
        """A file with modules has no default module: a demo would serve fictitious departures next to real ones."""
        arriva = ModuleSettings(source="govi", callback="tcp:8084")
        for kv55, modules in (("", {}), ("[modules.kv55]\n", {"kv55": ModuleSettings()})):
            config = self.load(f'{kv55}[modules.arriva]\nsource = "govi"\ncallback = "tcp:8084"\n')
            self.assertEqual(config.modules, {**modules, "arriva": arriva})

    def test_valid_module_names(self) -> None:
        """A module's name is a path segment of letters, digits and hyphens."""
        for name in ("a", "5", "KV55", "kv55-test"):
            self.assertIn(name, self.load(f"[modules.{name}]\ncallback = 'tcp:1'").modules)

    def test_bounds_are_valid(self) -> None:
        """The smallest and the largest numbers are valid."""
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

    def test_live_modules_share_feed(self) -> None:
        """Modules of the live feed share it and need no callback endpoint; a timetable alone suffices."""
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

    def test_stale_may_equal_fresh(self) -> None:
        """cache.stale may equal cache.fresh: no stale board is served."""
        self.assertEqual(self.load("[cache]\nfresh = 60\nstale = 60").cache.stale, 60)

    def test_endpoints_of_any_type(self) -> None:
        """Endpoints of every Twisted type are valid; the operators' endpoint may be empty."""
        endpoints = ["systemd:domain=INET:index=0", "haproxy:tcp:8080", "tcp6:8080", "ssl:8443:privateKey=key.pem"]
        self.assertEqual(self.load(f"listen = {endpoints}").listen, tuple(endpoints))
        self.assertEqual(self.load("[admin]\nlisten = ''").admin.listen, "")

    def test_loads_are_independent(self) -> None:
        """Loading a configuration does not affect later ones."""
        self.load("[modules.arriva]\ncallback = 'tcp:1'\n[modules.kv55]\nsource = 'govi'")
        self.assertEqual(load_valid(None, {}).config, Config())
        self.assertEqual(list(Config().modules), ["kv55"])


class ErrorTests(ConfigTestCase):
    """Tests of invalid configurations. The error is one line; it names the file and the key, or the option."""

    def test_invalid_setting_is_named(self) -> None:
        """The error names the key, the value, and the expected form or the nearest valid value."""
        for toml, error in INVALID:
            self.assertEqual(self.error(toml), f"{self.path}: {error}", toml)
            self.assertNotIn("\n", error)

    def test_passwords_are_not_shown(self) -> None:
        """No error shows the password of a URL, whichever setting it is in."""
        for key in ("modules.kv55.gateway_url", "share.url", "statistics.file", "log.format"):
            table, _, name = key.rpartition(".")
            error = self.error(f'[{table}]\n{name} = "http://operator:geheim@gateway.example/ x"')
            self.assertNotIn("geheim", error)

    def test_nearest_key_is_suggested(self) -> None:
        """The error of a misspelt key, in any table, suggests the right key."""
        for key in SETTINGS:
            table, _, name = key.rpartition(".")
            section = f"[{table}]\n" if table else ""
            self.assertEqual(
                self.error(f"{section}{name}_ = 1"), f"{self.path}: {key}_: unknown setting; did you mean {key!r}?"
            )

    def test_shared_callback_endpoint(self) -> None:
        """Two modules cannot share a callback endpoint, including the default one."""
        endpoint = "tcp:8082:interface=127.0.0.1"
        self.assertEqual(
            self.error("[modules.arriva]\n[modules.kv55]"),
            f"{self.path}: modules.kv55.callback: {endpoint!r} has the same address as modules.arriva.callback, "
            f"{endpoint!r}",
        )

    def test_endpoints_on_one_port(self) -> None:
        """Two settings cannot have the same port, in the file, as options, or one of each."""
        source = {"modules.kv55.source": "govi"}
        self.assertEqual(
            self.error('listen = ["tcp:80", "tcp:81"]\nmanhole = {listen = "tcp:81:backlog=5", keys = "k"}', source),
            f"{self.path}: manhole.listen: 'tcp:81:backlog=5' has the same address as listen[1], 'tcp:81'",
        )
        self.assertEqual(
            self.error("", {**source, "modules.kv55.callback": "tcp:8081"}),
            f"{self.path}: admin.listen: 'tcp:8081:interface=127.0.0.1' has the same address as "
            "modules.kv55.callback, 'tcp:8081'",
        )
        self.assertEqual(
            self.error("", {**source, "listen": ["tcp:80"], "modules.kv55.callback": "tcp:80"}),
            "--callback: 'tcp:80' has the same address as listen[0], 'tcp:80'",
        )
        config = load_valid(None, {"modules.kv55.source": "kv78turbo", "modules.kv55.callback": "tcp:8080"})
        self.assertEqual(config.problems, [], "the live feed has no callbacks")

    def test_invalid_gateway_url(self) -> None:
        """All parts of a gateway's URL are validated, including the port."""
        for url in (
            "http://[bad",
            "http://x:99999/",
            "http://x:abc/",
            "http://x y/",
            "http://x/\nfoo",
            "http://x:0/",
        ):
            self.assertEqual(
                self.error("", {"modules.kv55.source": "govi", "modules.kv55.gateway_url": url}),
                f"--gateway-url: invalid URL {url!r} (expected a string such as 'http://localhost:8083/')",
            )

    def test_demo_has_its_own_gateway(self) -> None:
        """The demo accepts no gateway URL, and its gateway must be able to reach the callback endpoint."""
        self.assertEqual(
            self.error("", {"modules.kv55.source": "demo", "modules.kv55.gateway_url": "http://localhost/"}),
            "--gateway-url: not used by source 'demo' (expected source 'govi')",
        )
        self.assertEqual(
            self.error("", {"modules.kv55.source": "demo", "modules.kv55.callback": "unix:/x"}),
            "--callback: invalid endpoint 'unix:/x' (source 'demo' expects a tcp endpoint)",
        )

    def test_error_is_one_short_line(self) -> None:
        """The error is one line for any keys and values; long ones are truncated."""
        for toml in (
            '"a\\nb" = 1',
            "[cache]\nfresh = 'a\\nb'",
            "a = " + "[" * 5000,
            "a = " + "9" * 5000,
            f"listen = '{'x' * 5000}'",
            '"listen[0]" = 3',
            '[modules]\n"a[b" = 5',
            '[access]\n"rate[0]" = 3',
        ):
            error = self.error(toml)
            self.assertNotIn("\n", error)
            self.assertLess(len(error), 500)

    def test_error_in_options(self) -> None:
        """The error of an option names the option, with or without a file."""
        options: tuple[tuple[dict[str, Any], str], ...] = (
            ({"modules.kv55.source": "gtfs"}, "--source: invalid value 'gtfs' (expected demo, govi or kv78turbo)"),
            (
                {"modules.kv55.gateway_url": "x"},
                "--gateway-url: invalid URL 'x'; did you mean 'http://x'?",
            ),
            ({"listen": ["tcp:80", "9000"]}, "--listen: invalid endpoint '9000'; did you mean 'tcp:9000'?"),
            ({"listen": []}, "--listen: invalid value [] (expected at least one endpoint)"),
            (
                {"feed.addresses": ["localhost:7817"]},
                "--feed: invalid feed address 'localhost:7817'; did you mean 'tcp://localhost:7817'?",
            ),
            (
                {"feed.addresses": ["tcp://"]},
                "--feed: invalid feed address 'tcp://' (expected a string such as 'tcp://localhost:7817')",
            ),
        )
        for values, error in options:
            self.assertEqual(self.error("[cache]", values), error)
            with self.assertRaises(ConfigError) as caught:
                load(None, values)
            self.assertEqual(str(caught.exception).splitlines()[0], error)

    def test_conflict_of_file_and_option(self) -> None:
        """The error of a conflict names the option if its value is the unexpected one, or else the file."""
        options = {"modules.kv55.source": "kv78turbo"}
        self.assertEqual(
            self.error("[modules.kv55]\nsource = 'govi'\ngateway_url = 'http://x/'", options),
            f"{self.path}: modules.kv55.gateway_url: not used by source 'kv78turbo' (expected source 'govi')",
        )

    def test_file_may_depend_on_options(self) -> None:
        """A setting of the file may require another that an option sets."""
        config = self.load("[manhole]\nlisten = 'tcp:1'", {"manhole.keys": "keys"})
        self.assertEqual((config.manhole.listen, config.manhole.keys), ("tcp:1", "keys"))
        self.assertEqual(
            self.error("[manhole]\nlisten = 'tcp:1'"),
            f"{self.path}: manhole.listen: requires manhole.keys (--manhole-keys), "
            "the file of the public keys that may log in",
        )

    def test_file_is_checked_first(self) -> None:
        """An error in the file is reported even if an option overrides the value."""
        self.assertEqual(
            self.error("listen = 5", {"listen": ["tcp:80"]}),
            f"{self.path}: listen: invalid value 5 (expected an array of endpoints)",
        )

    def test_unreadable_file_is_named(self) -> None:
        """The error of a file that cannot be read names it with the reason."""
        directory = os.path.dirname(self.path)
        for path, reason in (
            (self.path, "No such file or directory"),
            (os.path.join(self.path, "x"), "No such file or directory"),
            (directory, "Is a directory"),
        ):
            with self.assertRaises(ConfigError) as caught:
                load(path, {})
            self.assertEqual(str(caught.exception), f"--config: cannot read {path}: {reason}")

    def test_position_in_invalid_toml(self) -> None:
        """The error of a file that is not TOML names it with the position."""
        for toml, position in (
            ("a = " + "[" * 5000, "too many nested arrays or tables"),
            ("a = " + "9" * 5000, "a number has too many digits"),
            ("listen = [\n'a'\n'b']", "line 3"),
            ("[cache]\n[cache]", "line 2"),
            ("a = 1\nb =", ""),
        ):
            error = self.error(toml)
            self.assertTrue(error.startswith(f"{self.path}: invalid TOML: "), error)
            self.assertIn(position, error)
            self.assertNotIn("\n", error)

    def test_position_of_invalid_utf_8(self) -> None:
        """The error of a file that is not UTF-8 names it with the position of the byte."""
        error = self.error(b"# caf\xe9\n")
        self.assertTrue(error.startswith(f"{self.path}: invalid TOML: not UTF-8 (invalid byte at offset 5)"))
        self.assertNotIn("\n", error)

    def test_byte_order_mark(self) -> None:
        """A UTF-8 byte order mark and CRLF are accepted; the error of UTF-16 and UTF-32 names them."""
        toml = "listen = ['tcp:1']\r\n[cache]\r\nfresh = 30\r\n"
        config = self.load(toml.encode("utf-8-sig"))
        self.assertEqual((config.listen, config.cache.fresh), (("tcp:1",), 30))
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"):
            self.assertEqual(
                self.error(toml.encode(encoding)), f"{self.path}: invalid TOML: UTF-16 or UTF-32 (expected UTF-8)"
            )

    def test_empty_name_of_the_file(self) -> None:
        """The error of an empty file name names the option."""
        with self.assertRaises(ConfigError) as caught:
            load("", {})
        self.assertEqual(str(caught.exception), "--config: invalid value '' (expected a file)")

    def test_unused_options(self) -> None:
        """An option that would have no effect, or would add a module that its user does not expect, is an error."""
        unused: tuple[tuple[str, dict[str, Any], str], ...] = (
            (
                "",
                {"modules.kv55.source": "demo", "feed.addresses": ["tcp://x:1"]},
                "--feed: not used by source 'demo'",
            ),
            ("", {"modules.kv55.source": "govi", "feed.timetable": "t"}, "--timetable: not used by source 'govi'"),
            ("[modules.a]\nsource = 'govi'", {"feed.timetable": "t"}, "--timetable: not used by source 'govi'"),
            ("", {"manhole.keys": "k"}, "--manhole-keys: not used without manhole.listen (--manhole)"),
            (
                "[modules.Foo]\n[modules.bar]\ncallback='tcp:1'",
                {"modules.kv55.callback": "tcp:2"},
                "--callback: there is no module kv55, only modules.Foo or modules.bar (expected --source to add it)",
            ),
        )
        for toml, options, error in unused:
            self.assertEqual(self.error(toml, options).partition(" (expected source")[0], error)
        used: tuple[tuple[str, dict[str, Any]], ...] = (
            ("[modules.a]\nsource = 'kv78turbo'", {"feed.addresses": ["tcp://x:1"]}),
            ("[modules.a]\ncallback='tcp:1'", {"modules.kv55.source": "govi", "modules.kv55.callback": "tcp:2"}),
            ("[modules.kv55]\n", {"modules.kv55.callback": "tcp:2"}),
            ("", {"feed.timetable": "t"}),
            ("", {"modules.kv55.callback": "tcp:2"}),
            ("[manhole]\nlisten = 'tcp:1'", {"manhole.keys": "k"}),
        )
        for toml, options in used:
            self.load(toml, options)


class GeneratedFileTests(SynchronousTestCase):
    """Tests of the files that `make configuration` generates."""

    def test_annotated_example_is_current(self) -> None:
        """etc/govi-cache.toml equals the file generated from the settings."""
        self.assertEqual(configuration.TOML.read_text("utf-8"), configuration.toml_file())

    def test_page_is_current(self) -> None:
        """docs/configuration.md equals the page generated from the settings."""
        self.assertEqual(configuration.PAGE.read_text("utf-8"), configuration.page())

    def test_annotated_example_is_the_default(self) -> None:
        """etc/govi-cache.toml contains every setting with its default."""
        self.assertEqual(load_valid(str(configuration.TOML), {}).config, Config())
        for key in SETTINGS:
            self.assertRegex(configuration.toml_file(), rf"\n#?{key.rpartition('.')[2]} = ")

    def test_quoted_errors_are_current(self) -> None:
        """docs/configuration.md quotes errors of the program."""
        for toml, options in (
            ("[cache]\nfrehs = 1", {}),
            ("[modules.kv55]\nsource = 'gtfs'", {}),
            ("", {"listen": ["9000"]}),
        ):
            with TemporaryDirectory() as directory:
                path = os.path.join(directory, "govi-cache.toml")
                with open(path, "w", encoding="utf-8") as file:
                    file.write(toml)
                with self.assertRaises(ConfigError) as caught:
                    load(path, options)
            error = str(caught.exception).splitlines()[0].replace(directory + os.sep, "")
            self.assertIn(f"\ngovi-cache: {error}\n", configuration.PAGE_HEAD)
