"""The status as a page: readable at three in the morning, without scripts and without anything from the network."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

REFRESH = 10
"""Seconds after which the page loads itself again."""

# Every colour comes with a word. Contrast on both backgrounds is at least 4.5 to 1 for text, 3 to 1 for areas.
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1b1b; --soft: #595959; --line: #c9c9c9; --panel: #f4f4f4;
  --good: #1a7f37; --middle: #8a5a00; --bad: #b3261e; --hit: #1a7f37; --stale: #8a5a00; --joined: #0b63b5;
  --miss: #6b3fa0; --timeout: #b3261e; --failed: #7a0f4e }
@media (prefers-color-scheme: dark) { :root { --ground: #111416; --text: #ececec; --soft: #ababab; --line: #3c4246;
  --panel: #1b2023; --good: #5fd37f; --middle: #f0b94a; --bad: #ff8a80; --hit: #5fd37f; --stale: #f0b94a;
  --joined: #6cb6ff; --miss: #c3a1f5; --timeout: #ff8a80; --failed: #ff9ad0 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; background: var(--ground); color: var(--text);
  font: 16px/1.45 system-ui, sans-serif }
header { border-left: .6rem solid var(--verdict); padding: .3rem 1rem; margin-bottom: 1rem }
h1 { margin: 0; font-size: 2.2rem; color: var(--verdict) }
h2 { font-size: 1.05rem; margin: 0 0 .5rem }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem }
section { background: var(--panel); border: 1px solid var(--line); border-radius: .4rem; padding: .8rem }
section { min-width: 0 }
.wide { grid-column: 1 / -1 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .1rem 0; overflow-wrap: break-word } td { text-align: right }
th { text-align: left; font-weight: normal; color: var(--soft); padding-right: .8rem }
.soft, footer { color: var(--soft) }
.good { color: var(--good) } .middle { color: var(--middle) } .bad { color: var(--bad) }
ul { margin: 0; padding-left: 1.2rem } svg { display: block; width: 100%; height: auto }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .5rem 0 0; padding: 0; list-style: none }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; margin-right: .35rem }
.events td { text-align: left; vertical-align: top; padding-right: .8rem }
footer { margin-top: 1rem; font-size: .9rem } a { color: inherit }
"""

_VERDICTS = {"UP": "good", "RECOVERING": "middle", "DEGRADED": "middle", "DOWN": "bad"}
_STATES = {"UP": "good", "closed": "good", "DOWN": "bad", "open": "bad"}


def page(status: Mapping[str, Any]) -> bytes:
    """Make the page of a status."""
    word = status["verdict"]
    why = status["why"] or ["Travellers get their answers."]
    sections = [
        _hour(status["hour"]),
        *(_gateway(name, source) for name, source in status["gateways"].items()),
        *([] if status["feed"] is None else [_feed(status["feed"])]),
        _server(status),
        *_stops(status["stops"]),
        _section("Clients that ask most", _counts(status["clients"])),
        _events(status["events"]),
    ]
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="{REFRESH}">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(word)} · govi-cache</title>
<style>{_STYLE}:root {{ --verdict: var(--{_VERDICTS.get(word, "bad")}) }}</style></head><body>
<header><h1>{escape(word)}</h1><p>since {_moment(status["since"])}</p>
<ul>{"".join(f"<li>{escape(reason)}</li>" for reason in why)}</ul></header>
<main>{"".join(sections)}</main>
<footer>As of {_moment(status["now"])}, again every {REFRESH} s. Running since {_moment(status["started"])}.
govi-cache {escape(status["version"])}. <a href="status.json">status.json</a> · <a href="metrics">metrics</a></footer>
</body></html>
""".encode()


def _section(title: str, body: str, wide: bool = False) -> str:
    return f"<section{' class=wide' if wide else ''}><h2>{escape(title)}</h2>{body}</section>"


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    """Make a table of names and values, which are HTML."""
    return (
        "<table>"
        + "".join(f"<tr><th scope=row>{name}</th><td>{value}</td></tr>" for name, value in rows)
        + "</table>"
    )


def _counts(counts: Mapping[str, int], unit: str = "") -> str:
    if not counts:
        return "<p class=soft>none in the last hour</p>"
    return _rows((escape(name), f"{count:,}{unit}") for name, count in counts.items())


def _moment(moment: str) -> str:
    day, _, time = moment.removesuffix("Z").partition("T")
    return f"<time datetime={escape(moment)}>{escape(day)} {escape(time)} UTC</time>"


def _word(word: str) -> str:
    return f"<b class={_STATES.get(word, 'middle')}>{escape(word)}</b>"


def _ms(quantiles: Mapping[str, float | None]) -> str:
    if quantiles["p50"] is None:
        return "<span class=soft>none</span>"
    return " / ".join(f"{value:,.0f}" for value in quantiles.values() if value is not None) + " ms"


def _hour(hour: Mapping[str, Any]) -> str:
    outcomes: Mapping[str, Sequence[int]] = hour["outcomes"]
    totals = {name: sum(minutes) for name, minutes in outcomes.items()}
    total = sum(totals.values())
    key = "".join(
        f'<li><i style="background:var(--{name})"></i>{name} {n:,}{f" ({n / total:.0%})" if total else ""}</li>'
        for name, n in totals.items()
    )
    statuses = ", ".join(f"{escape(status)}: {n:,}" for status, n in hour["statuses"].items()) or "none"
    body = f"{_bars(outcomes)}<ul class=key>{key}</ul><p class=soft>Answers by status: {statuses}</p>"
    return _section("Questions for boards in the last hour, by minute", body, wide=True)


def _bars(series: Mapping[str, Sequence[int]]) -> str:
    """Draw stacked bars, a minute each, the oldest on the left."""
    minutes = [list(values) for values in zip(*series.values(), strict=True)]
    top = max([sum(values) for values in minutes] or [0])
    width, height, left, base = 720, 150, 44, 120
    bars = []
    for at, values in enumerate(minutes):
        y = float(base)
        for name, value in zip(series, values, strict=True):
            size = value / top * (base - 10) if top else 0
            if size:
                y -= size
                bars.append(
                    f'<rect x="{left + at * 11}" y="{y:.1f}" width="9" height="{size:.1f}" fill="var(--{name})">'
                    f"<title>{59 - at} min ago: {value:,} {name}</title></rect>"
                )
    ticks = "".join(
        f'<text x="{left + (60 - ago) * 11}" y="{base + 18}" text-anchor="middle">{text}</text>'
        for ago, text in ((60, "-60 min"), (45, "-45"), (30, "-30"), (15, "-15"), (0, "now"))
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Questions a minute, {top:,} at most" '
        f'font-size="12" fill="currentColor"><text x="{left - 6}" y="18" text-anchor="end">{top:,}</text>'
        f'<text x="{left - 6}" y="{base}" text-anchor="end">0</text>'
        f'<path d="M{left} {base}H{left + 660}" stroke="var(--line)"/>{"".join(bars)}{ticks}</svg>'
    )


def _gateway(name: str, source: Mapping[str, Any]) -> str:
    cache = source["cache"]
    rows = [
        ("circuit breaker", _word(source["breaker"])),
        ("questions on their way", f"{source['flights']:,}, for {source['waiting']:,} clients"),
        ("until taken, p50 / p95 / p99", _ms(source["hour"]["acknowledgement_ms"])),
        ("until answered, p50 / p95 / p99", _ms(source["hour"]["answer_ms"])),
        ("boards in memory", f"{cache['boards']:,}, {cache['bytes'] / 1e3:,.0f} kB, {cache['evicted']:,} evicted"),
    ]
    return _section(f"Gateway of /{name}", _rows(rows))


def _feed(feed: Mapping[str, Any]) -> str:
    age = "<span class=bad>never</span>" if feed["age"] is None else f"{feed['age']:,.0f} s ago"
    owners = ", ".join(f"{escape(owner)} {seconds:,.0f} s" for owner, seconds in feed["owners"].items()) or "none"
    rows = [
        ("state", _word(feed["state"])),
        ("connected to", escape(feed["address"] or "nobody")),
        ("last data", age),
        ("records", f"{feed['records']:,}"),
        ("connected anew", f"{feed['reconnects']:,} times"),
        ("live passes, planned ones", f"{feed['passes']:,}, {feed['planned']:,}"),
        ("stops, messages", f"{feed['stops']:,}, {feed['messages']:,}"),
        ("data owners, last heard", owners),
    ]
    return _section("Live feed", _rows(rows))


def _server(status: Mapping[str, Any]) -> str:
    connections = status["connections"]
    incidents = [
        (escape(f"{where}: {kind}"), f"{count:,}")
        for where, counts in status["incidents"].items()
        for kind, count in counts.items()
    ]
    rows = [
        ("connections", f"{connections['open']:,} of {connections['limit']:,}"),
        ("answers under", ", ".join(f"/{escape(name)}" for name in status["modules"])),
        *incidents,
    ]
    return _section("Server, and what went wrong since it started", _rows(rows))


def _stops(stops: Mapping[str, Any]) -> list[str]:
    return [
        _section("Stops asked for most", _counts(stops["most_asked"])),
        _section("Stops that took longest", _counts(stops["slowest_ms"], " ms")),
        _section("Stops with most answers 5xx", _counts(stops["most_failed"])),
        _section("Asked for, and unknown", _counts(stops["unknown"])),
    ]


def _events(events: Sequence[Mapping[str, str]]) -> str:
    rows = "".join(
        f"<tr><td>{_moment(event['time'])}<td><b class={'middle' if event['level'] == 'warn' else 'bad'}>"
        f"{escape(event['level'])}</b><td>{escape(event['text'])}"
        for event in events
    )
    body = f"<table class=events>{rows}</table>" if rows else "<p class=soft>none since the start</p>"
    return _section("Warnings and errors, the newest first", body, wide=True)
