"""The status as a page: readable at three in the morning, without scripts and without anything from the network."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

REFRESH = 10
"""Seconds after which the page loads itself again."""

NEWEST = 6
"""Warnings and errors that are shown at once."""

# Every colour comes with a word. Contrast on both backgrounds is at least 4.5 to 1 for text, 3 to 1 for areas. The
# colours of the bars are a ladder of lightness, so that they are told apart without their hues.
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1b1b; --soft: #595959; --line: #c9c9c9; --panel: #f4f4f4;
  --good: #1a7f37; --middle: #8a5a00; --bad: #b3261e;
  --hit: #166b32; --stale: #c57d00; --joined: #06315c;
  --miss: #8f5acf; --timeout: #8b1a14; --failed: #2b051b }
@media (prefers-color-scheme: dark) { :root { --ground: #111416; --text: #ececec; --soft: #ababab; --line: #3c4246;
  --panel: #1b2023; --good: #5fd37f; --middle: #f0b94a; --bad: #ff8a80;
  --hit: #24af52; --stale: #ffc96b; --joined: #0d6ac7;
  --miss: #c4a8e6; --timeout: #e44840; --failed: #fdf0f8 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; background: var(--ground); color: var(--text);
  font: 16px/1.45 system-ui, sans-serif }
header { border-left: .6rem solid var(--verdict); padding: .3rem 1rem; margin-bottom: 1rem }
h1 { margin: 0; font-size: 2.2rem; color: var(--verdict) }
h2 { font-size: 1.05rem; margin: 0 0 .5rem }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem }
section { background: var(--panel); border: 1px solid var(--line); border-radius: .4rem; padding: .8rem }
section { min-width: 0 }
.wide { grid-column: 1 / -1 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .1rem 0; vertical-align: top } td { text-align: right; overflow-wrap: anywhere }
td.figure { white-space: nowrap; padding-left: .8rem } p:last-child { margin-bottom: 0 }
th { text-align: left; font-weight: normal; color: var(--soft); padding-right: .8rem }
.soft, footer { color: var(--soft) }
.good { color: var(--good) } .middle { color: var(--middle) } .bad { color: var(--bad) }
ul { margin: 0; padding-left: 1.2rem }
.chart { display: grid; grid-template-columns: auto 1fr; gap: .1rem .5rem; font-size: .875rem; color: var(--soft) }
.chart svg { width: 100%; height: 8rem; border-bottom: 1px solid var(--soft) }
.chart div { display: flex; justify-content: space-between } .chart div:first-child { flex-direction: column }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .5rem 0 0; padding: 0; list-style: none }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; margin-right: .35rem }
.events { list-style: none; padding: 0 } .events li { padding: .15rem 0 }
footer { margin-top: 1rem; font-size: .9rem } a { color: inherit }
"""

_VERDICTS = {"UP": "good", "RECOVERING": "middle", "DEGRADED": "middle", "DOWN": "bad"}
_CONNECTED = ("UP", "RECOVERING")
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
        _events(status["events"], status["now"]),
        *_stops(status["stops"]),
        _section("Clients that ask most", _counts(status["clients"])),
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
    return "<table>" + "".join(f"<tr><th scope=row>{name}<td>{value}" for name, value in rows) + "</table>"


def _counts(counts: Mapping[str, int], unit: str = "") -> str:
    if not counts:
        return "<p class=soft>none in the last hour</p>"
    return _rows((escape(name), f"{count:,}{unit}") for name, count in counts.items())


def _moment(moment: str) -> str:
    day, _, time = moment.removesuffix("Z").partition("T")
    return f"<time datetime={escape(moment)}>{escape(day)} {escape(time)} UTC</time>"


def _word(word: str) -> str:
    return f"<b class={_STATES.get(word, 'middle')}>{escape(word)}</b>"


def _latencies(source: Mapping[str, Any]) -> str:
    """Make a table of how long questions took, lately and in the last hour."""
    rows = []
    for name, key in (("taken", "acknowledgement_ms"), ("answered", "answer_ms")):
        for quantile, hour in source["hour"][key].items():
            figures = "".join(f"<td class=figure>{_ms(value)}" for value in (source["lately"][key][quantile], hour))
            rows.append(f"<tr><th scope=row>{name}, {quantile}{figures}")
    return f"<table><tr><th>a question is<td class=figure>5 min<td class=figure>hour{''.join(rows)}</table>"


def _ms(value: float | None) -> str:
    return "<span class=soft>none</span>" if value is None else f"{value:,.0f} ms"


def _share(part: int, whole: int) -> str:
    """Write a share in HTML: not as nothing what is little."""
    return "&lt;1%" if 0 < part < whole / 100 else f"{part / whole:.0%}"


def _hour(hour: Mapping[str, Any]) -> str:
    outcomes: Mapping[str, Sequence[int]] = hour["outcomes"]
    totals = {name: sum(minutes) for name, minutes in outcomes.items()}
    total = sum(totals.values())
    key = "".join(
        f'<li><i style="background:var(--{name})"></i>{name} {n:,}{f" ({_share(n, total)})" if n else ""}</li>'
        for name, n in totals.items()
    )
    statuses = ", ".join(f"{escape(status)}: {n:,}" for status, n in hour["statuses"].items()) or "none"
    body = f"{_bars(outcomes)}<ul class=key>{key}</ul><p class=soft>Answers by status: {statuses}</p>"
    return _section("Questions for boards in the last hour, by minute", body, wide=True)


def _bars(series: Mapping[str, Sequence[int]]) -> str:
    """Draw stacked bars, a minute each, the oldest on the left."""
    minutes = [list(values) for values in zip(*series.values(), strict=True)]
    top = max([sum(values) for values in minutes] or [0])
    height = 128
    bars = []
    for at, values in enumerate(minutes):
        y = float(height)
        for name, value in zip(series, values, strict=True):
            size = value / top * height if top else 0
            y -= size
            if size:  # a gap tells neighbours apart; what is too thin for one has none
                bars.append(
                    f'<rect x="{at * 10}" y="{y:.1f}" width="8" height="{size - 1 if size > 2 else size:.1f}" '
                    f'fill="var(--{name})"><title>{59 - at} min ago: {value:,} {name}</title></rect>'
                )
    # Only the bars are stretched to the width of the screen; letters keep their size.
    return (
        f"<div class=chart><div><span>{top:,}</span><span>0</span></div>"
        f'<svg viewBox="0 0 600 {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="Questions a minute, {top:,} at most">{"".join(bars)}</svg>'
        "<span></span><div><span>-60 min</span><span>-45</span><span>-30</span><span>-15</span><span>now</span></div>"
        "</div>"
    )


def _gateway(name: str, source: Mapping[str, Any]) -> str:
    cache = source["cache"]
    rows = [
        ("circuit breaker", _word(source["breaker"])),
        ("questions on their way", f"{source['flights']:,}"),
        ("clients that wait", f"{source['waiting']:,}"),
        ("boards in memory", f"{cache['boards']:,}, {cache['bytes'] / 1e3:,.0f} kB"),
        ("boards that made room", f"{cache['evicted']:,}"),
    ]
    return _section(f"Gateway of /{name}", _rows(rows) + _latencies(source))


def _feed(feed: Mapping[str, Any]) -> str:
    age = "<span class=bad>never</span>" if feed["age"] is None else f"{feed['age']:,.0f} s ago"
    owners = (
        ", ".join(f"{escape(owner)}&nbsp;{seconds:,.0f}&nbsp;s" for owner, seconds in feed["owners"].items())
        or "none"
    )
    rows = [
        ("state", _word(feed["state"])),
        ("connected to" if feed["state"] in _CONNECTED else "trying", escape(feed["address"] or "none now")),
        ("last data", age),
        ("records", f"{feed['records']:,}"),
        ("connected anew", {0: "never", 1: "once"}.get(feed["reconnects"], f"{feed['reconnects']:,} times")),
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
        ("of these, listening for events", f"{connections['streams']:,}"),
        ("answers under", ", ".join(f"/{escape(name)}" for name in status["modules"])),
        *incidents,
    ]
    return _section("Server, and what went wrong since it started", _rows(rows))


def _stops(stops: Mapping[str, Any]) -> list[str]:
    return [
        _section("Stops asked for most", _counts(stops["most_asked"])),
        _section("Stops that took longest", _counts(stops["slowest_ms"], " ms")),
        _section("Stops with most answers 5xx", _counts(stops["most_failed"])),
        _section("Asked, never answered", _counts(stops["never_answered"])),
        _section("Asked for, and unknown", _counts(stops["unknown"])),
    ]


def _events(events: Sequence[Mapping[str, str]], now: str) -> str:
    today = now.partition("T")[0]
    rows = [
        f"<li><time datetime={escape(event['time'])}>"
        f"{escape(event['time'].removeprefix(today).strip('TZ').replace('T', ' '))}</time> "
        f"<b class={'middle' if event['level'] == 'warn' else 'bad'}>{escape(event['level'])}</b> "
        f"{escape(event['text'])}"
        for event in events
    ]
    body = f"<ul class=events>{''.join(rows[:NEWEST])}</ul>" if rows else "<p class=soft>none since the start</p>"
    if older := rows[NEWEST:]:
        body += f"<details><summary>{len(older)} more</summary><ul class=events>{''.join(older)}</ul></details>"
    return _section("Warnings and errors, the newest first, UTC", body, wide=True)
