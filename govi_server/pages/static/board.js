// Updates the board live. Without this script the page reloads itself. Supports the old browsers of wall displays.
(function () {
  "use strict";
  var POLL_SECONDS = 30;  // between requests for the page without a stream
  var OFFLINE_SECONDS = 60;  // without a response before a notice is shown
  var COUNTDOWN_SECONDS = 600, GRACE_SECONDS = 60;  // as on the server: minutes below ten, and a minute of grace
  var board = document.getElementById("board");
  var offline = document.getElementById("offline");
  var news = document.getElementById("news");
  if (!board || !board.querySelector) { return; }
  var clockOffset = 0;  // seconds by which the server's clock is ahead of this one
  var lastResponse = Date.now();
  var asOf = "";  // the time on the board's clock at that moment
  var currentHtml = "";
  var announced = {};

  function each(nodes, use) { Array.prototype.forEach.call(nodes, use); }
  function setText(node, text) { if (node.textContent !== text) { node.textContent = text; } }
  function twoDigits(n) { return (n < 10 ? "0" : "") + n; }

  // Counts down, never up: the server sends the maximum remaining time.
  function tick() {
    var now = Date.now() / 1000 + clockOffset;
    var clock = board.querySelector(".clock");
    if (clock) {
      var wall = new Date((now + Number(clock.getAttribute("data-offset"))) * 1000);
      setText(clock, twoDigits(wall.getUTCHours()) + ":" + twoDigits(wall.getUTCMinutes()));
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
      offline.textContent = isOffline ? offline.getAttribute("data-text").replace("{time}", asOf) : "";
      offline.hidden = !isOffline;
      board.className = isOffline ? "lost" : "";  // "on time" loses its colour: it may be outdated
      if (isOffline) { readOut(offline.textContent); }
    }
  }

  // Records the time of a response, and the time on the board's clock.
  function noteResponse() {
    var clock = board.querySelector(".clock");
    lastResponse = Date.now();
    asOf = clock ? clock.textContent : "";
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
      current[text] = true;
      if (!announced[text]) { fresh.push(text); }
    });
    announced = current;
    if (fresh.length && !silently) { readOut(fresh.join(". ")); }
  }

  function update(silently) {
    var clock = board.querySelector(".clock");
    noteResponse();
    if (clock) { clockOffset = Number(clock.getAttribute("data-now")) - lastResponse / 1000; }
    announce(silently);
    tick();
  }

  function show(html) {
    if (html === currentHtml) { noteResponse(); return; }
    currentHtml = html;
    board.innerHTML = html;
    update(false);
  }

  // Requests the page, as a browser without scripts does, but leaves the board unchanged without a response.
  function poll() {
    var request = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.timeout = 1000 * POLL_SECONDS;
    request.setRequestHeader("Accept", "text/html");
    request.onload = function () {
      var main = request.response && request.response.getElementById("board");
      if (main) { show(main.innerHTML); }
    };
    request.send();
  }

  var stream = null;
  function subscribe() {
    if (!window.EventSource) { return; }
    stream = new EventSource(board.getAttribute("data-events"));
    stream.addEventListener("board", function (event) { show(event.data); });  // reconnects automatically after "bye"
    stream.addEventListener("open", noteResponse);
    stream.addEventListener("beat", noteResponse);  // nothing has changed
  }

  // Returns whether the stream is closed or silent: a connection may be lost without an error.
  function isSilent() { return !stream || stream.readyState !== 1 || Date.now() - lastResponse >= 1000 * POLL_SECONDS; }

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
  setInterval(tick, 1000);
  setInterval(function () {
    if (!isSilent()) { return; }
    poll();
    if (stream && stream.readyState !== 0) { stream.close(); subscribe(); }  // it would not reconnect automatically
  }, 1000 * POLL_SECONDS);
  document.addEventListener("visibilitychange", function () {
    if (!document.hidden && isSilent()) { poll(); }
  });
}());
