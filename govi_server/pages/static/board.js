// Updates the board live. Without this script the page reloads itself. Supports the old browsers of wall displays.
(function () {
  "use strict";
  var SILENT_SECONDS = 12;  // without an event before the page is requested: the stream has a beat every ten
  var OFFLINE_SECONDS = 18;  // without a response before a notice is shown
  var ALERT_SECONDS = 8;  // for each part of a message that does not fit
  var RELOAD_SECONDS = 60;  // within which pages reload after an upgrade of the server, not all at once
  var COUNTDOWN_SECONDS = 600, GRACE_SECONDS = 60;  // as on the server: minutes below ten, and a minute of grace
  var board = document.getElementById("board");
  var offline = document.getElementById("offline");
  var news = document.getElementById("news");
  if (!board || !board.querySelector) { return; }
  var isWall = / wall /.test(" " + document.body.className + " ");
  var rotate = Number(board.getAttribute("data-rotate"));  // seconds for each page of a wall; 0 for the first page only
  var clockOffset = 0;  // seconds by which the server's clock is ahead of this one
  var lastResponse = Date.now();
  var asOf = "";  // the time on the board's clock when it last had departures, or none within its horizon
  var currentHtml = "";
  var announced = {};
  var theme = /[?&]theme=(\w+)/.exec(location.search);  // which links to journeys pass on; the events do not know it
  var version = "";  // of the pages on the server
  var isOutdated = false;  // whether the next response reloads the page
  var polledAt = 0;
  var turns = 0;  // of the pages of a wall

  function each(nodes, use) { Array.prototype.forEach.call(nodes, use); }
  function setText(node, text) { if (node.textContent !== text) { node.textContent = text; } }
  function twoDigits(n) { return (n < 10 ? "0" : "") + n; }
  function seconds() { return Date.now() / 1000; }

  // Returns a time of day at the stop. time: epoch seconds.
  function timeOfDay(clock, time) {
    var wall = new Date((time + Number(clock.getAttribute("data-offset"))) * 1000);
    return twoDigits(wall.getUTCHours()) + ":" + twoDigits(wall.getUTCMinutes());
  }

  // Counts down, never up: the server sends the maximum remaining time.
  function tick() {
    var now = seconds() + clockOffset;
    var clock = board.querySelector(".clock"), age = board.querySelector(".age");
    if (clock) { setText(clock, timeOfDay(clock, now)); }
    if (age) {  // while the stream is open, the data does not become older than this
      var updated = lastResponse / 1000 + clockOffset - Number(age.getAttribute("data-age"));
      setText(age, board.getAttribute("data-age-text").replace("{time}", timeOfDay(clock, updated)));
    }
    each(board.querySelectorAll("[data-at]"), function (node) {
      var left = Number(node.getAttribute("data-at")) - now;
      if (left < 60) {
        setText(node, board.getAttribute("data-now-text"));
        var row = node.parentNode.parentNode.parentNode;
        // The age of the data shortens the time until arrival; a departure leaves at the end of the minute shown.
        var departure = Date.parse(node.getAttribute("datetime")) / 1000 + 60;
        if (now - departure > GRACE_SECONDS && row.className !== "stopped") { row.setAttribute("hidden", ""); }
      } else if (left < COUNTDOWN_SECONDS) {
        setText(node, board.getAttribute("data-minutes-text").replace("{n}", Math.floor(left / 60)));
      }
    });
    var isOffline = Date.now() - lastResponse > OFFLINE_SECONDS * 1000;
    if (isOffline === offline.hidden) {
      var texts = [offline.getAttribute("data-text")];
      if (asOf) { texts.push(offline.getAttribute("data-since-text").replace("{time}", asOf)); }
      offline.textContent = isOffline ? texts.join(" ") : "";
      offline.hidden = !isOffline;
      board.className = isOffline ? "lost" : "";  // "on time" loses its colour: it may be outdated
      if (isOffline) { readOut(offline.textContent); }
    }
  }

  // Records the time of a response and, unless it has no data, the time on the board's clock.
  function noteResponse() {
    var clock = board.querySelector(".clock");
    lastResponse = Date.now();
    if (clock && board.querySelector("table, .none")) { asOf = clock.textContent; }
  }

  // Makes screen readers read a text; nothing else on the page interrupts them.
  function readOut(text) { news.textContent = text; }

  // Returns the text of a node for screen readers; for a line's number, the text instead of the image.
  function textOf(node) {
    var texts = [];
    each(node.tagName === "TR" ? node.querySelectorAll("th .unseen, td") : [node], function (part) {
      texts.push(part.textContent.replace(/\s+/g, " ").trim());
    });
    return texts.filter(Boolean).join(", ");
  }

  // Announces new messages, notices and cancellations, but not the countdown.
  function announce(silently) {
    var current = {}, fresh = [];
    each(board.querySelectorAll("[data-news]"), function (node) {
      var text = textOf(node);
      if (!announced[text] && !current[text]) { fresh.push(text); }
      current[text] = true;
    });
    announced = current;
    if (fresh.length && !silently) { readOut(fresh.join(". ").replace(/([.!?])\. /g, "$1 ")); }
  }

  // Reloads the page after an upgrade of the server, once it responds.
  function checkVersion(current) {
    if (version && current !== version) {
      setTimeout(function () { isOutdated = true; poll(); }, 1000 * RELOAD_SECONDS * Math.random());
    }
    version = current;
  }

  function update(silently) {
    var clock = board.querySelector(".clock");
    noteResponse();
    if (theme) {
      each(board.querySelectorAll('a[href^="/trip/"]:not([href*="&theme="])'), function (link) {
        link.setAttribute("href", link.getAttribute("href") + "&theme=" + theme[1]);
      });
    }
    if (clock) {
      clockOffset = Number(clock.getAttribute("data-now")) - lastResponse / 1000;
      checkVersion(clock.getAttribute("data-version"));
    }
    announce(silently);
    turnPages();
    tick();
  }

  function show(html) {
    if (html === currentHtml) { noteResponse(); return; }
    currentHtml = html;
    board.innerHTML = html;
    update(false);
  }

  // Shows a page of a table or of the messages, whose further pages are columns beside it; returns their number.
  function turn(node, number) {
    var width = node.clientWidth, pages = Math.max(Math.round(node.scrollWidth / width) || 1, 1);
    node.scrollLeft = number % pages * width;
    return pages;
  }

  function turnPages() {
    if (!isWall) { return; }
    each(board.querySelectorAll(".messages"), function (list) { turn(list, turns); });
    if (!rotate) { return; }
    each(board.querySelectorAll("tbody"), function (body) {
      var header = body.parentNode.parentNode.querySelector("header"), pages = turn(body, turns);
      header.setAttribute("data-page", pages > 1 ? turns % pages + 1 + "/" + pages : "");
    });
  }

  // Requests the page, as a browser without scripts does, but leaves the board unchanged without a response.
  function poll() {
    polledAt = Date.now();
    var request = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.timeout = 6000;
    request.setRequestHeader("Accept", "text/html");
    request.setRequestHeader("Cache-Control", "max-age=0");  // the browser's copy does not show a lost connection
    request.onload = function () {
      var main = request.response && request.response.getElementById("board");
      if (!main) { return; }
      if (isOutdated) { location.reload(); return; }
      show(main.innerHTML);
      if (stream && stream.readyState !== 1) { stream.close(); subscribe(); }  // the server can be reached again
    };
    request.send();
  }

  var stream = null;
  function subscribe() {
    if (!window.EventSource || !board.getAttribute("data-events")) { return; }
    stream = new EventSource(board.getAttribute("data-events"));
    stream.addEventListener("board", function (event) { show(event.data); });  // reconnects automatically after "bye"
    stream.addEventListener("open", noteResponse);
    stream.addEventListener("beat", noteResponse);  // nothing has changed
  }

  // Polls if there was no response for a while: a connection may be lost without an error.
  function pollIfSilent() {
    var now = Date.now();
    if (now - Math.max(lastResponse, polledAt) < 1000 * SILENT_SECONDS) { return; }
    poll();
    if (stream && stream.readyState !== 0) { stream.close(); subscribe(); }  // it would not reconnect automatically
  }

  // On a wall, the options appear for a while when the mouse is moved or a key is pressed.
  var sleeper = 0;
  function wake() {
    document.body.classList.add("awake");
    clearTimeout(sleeper);
    sleeper = setTimeout(function () {
      if (document.querySelector("footer :focus")) { wake(); } else { document.body.classList.remove("awake"); }
    }, 10000);
  }
  ["mousemove", "touchstart", "keydown"].forEach(function (name) { document.addEventListener(name, wake); });

  update(true);
  subscribe();
  setInterval(function () { tick(); pollIfSilent(); }, 1000);
  setInterval(function () { turns += 1; turnPages(); }, 1000 * (rotate || ALERT_SECONDS));
  window.addEventListener("resize", turnPages);
  document.addEventListener("visibilitychange", function () {
    if (!document.hidden && (!stream || stream.readyState !== 1)) { poll(); }
  });
}());
