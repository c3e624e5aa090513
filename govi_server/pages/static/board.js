// Keeps the board live. Without this script the page loads itself again; in the language of old browsers, for they
// hang on walls.
(function () {
  "use strict";
  var EVERY = 30;  // seconds between two looks at the page while there is no stream
  var LOST = 60;  // seconds without any answer after which the traveller is told
  var COUNTED = 600, GONE = 60;  // as on the server: minutes below ten, and a minute of grace
  var board = document.getElementById("board");
  var offline = document.getElementById("offline");
  var news = document.getElementById("news");
  if (!board || !board.querySelector) { return; }
  var ahead = 0;  // seconds by which the server's clock is ahead of ours
  var heard = Date.now();  // when there was an answer
  var asOf = "";  // what its clock said
  var shown = "";
  var told = {};

  function each(nodes, use) { Array.prototype.forEach.call(nodes, use); }
  function write(node, text) { if (node.textContent !== text) { node.textContent = text; } }
  function two(n) { return (n < 10 ? "0" : "") + n; }

  // Counts down, and never up: what the server says is the most that is left.
  function tick() {
    var now = Date.now() / 1000 + ahead;
    var clock = board.querySelector(".clock");
    if (clock) {
      var wall = new Date((now + Number(clock.getAttribute("data-offset"))) * 1000);
      write(clock, two(wall.getUTCHours()) + ":" + two(wall.getUTCMinutes()));
    }
    each(board.querySelectorAll("[data-at]"), function (node) {
      var left = Number(node.getAttribute("data-at")) - now;
      if (left < 60) {
        write(node, board.getAttribute("data-now-text"));
        var row = node.parentNode.parentNode.parentNode;
        // Old news makes it come sooner, not leave: that it does at the end of the minute that is told.
        var leaves = Date.parse(node.getAttribute("datetime")) / 1000 + 60;
        if (now - leaves > GONE && row.className !== "stopped") { row.setAttribute("hidden", ""); }
      } else if (left < COUNTED) {
        write(node, board.getAttribute("data-minutes-text").replace("{n}", Math.floor(left / 60)));
      }
    });
    var lost = Date.now() - heard > LOST * 1000;
    if (lost === offline.hidden) {
      offline.textContent = lost ? offline.getAttribute("data-text").replace("{time}", asOf) : "";
      offline.hidden = !lost;
      board.className = lost ? "lost" : "";  // nobody says any more that a bus is on time
      if (lost) { say(offline.textContent); }
    }
  }

  // Remembers that there was an answer just now, and what the clock of the page says.
  function hear() {
    var clock = board.querySelector(".clock");
    heard = Date.now();
    asOf = clock ? clock.textContent : "";
  }

  // Has it read out to who cannot see it: nothing else on the page is.
  function say(text) { news.textContent = text; }

  // Gives what is read of a node; of the line's number what is written, not what is drawn.
  function read(node) {
    var texts = [];
    each(node.tagName === "TR" ? node.querySelectorAll("th .unseen, td") : [node], function (part) {
      texts.push(part.textContent.replace(/\s+/g, " ").trim());
    });
    return texts.filter(Boolean).join(", ");
  }

  // Says what is new and matters; that minutes go by is not said.
  function announce(silently) {
    var now = {}, fresh = [];
    each(board.querySelectorAll("[data-news]"), function (node) {
      var text = read(node);
      now[text] = true;
      if (!told[text]) { fresh.push(text); }
    });
    told = now;
    if (fresh.length && !silently) { say(fresh.join(". ")); }
  }

  function learn(silently) {
    var clock = board.querySelector(".clock");
    hear();
    if (clock) { ahead = Number(clock.getAttribute("data-now")) - heard / 1000; }
    announce(silently);
    tick();
  }

  function put(html) {
    if (html === shown) { hear(); return; }
    shown = html;
    board.innerHTML = html;
    learn(false);
  }

  // Looks at the page as one without a script would, but keeps what there is while nobody answers.
  function look() {
    var request = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.timeout = 1000 * EVERY;
    request.setRequestHeader("Accept", "text/html");
    request.onload = function () {
      var main = request.response && request.response.getElementById("board");
      if (main) { put(main.innerHTML); }
    };
    request.send();
  }

  var stream = null;
  function listen() {
    if (!window.EventSource) { return; }
    stream = new EventSource(board.getAttribute("data-events"));
    stream.addEventListener("board", function (event) { put(event.data); });  // a "bye" it comes back from by itself
    stream.addEventListener("open", hear);
    stream.addEventListener("beat", hear);  // nothing new is an answer, too
  }

  // Tells whether there is no stream, or one that says nothing: a connection may be lost without a word.
  function quiet() { return !stream || stream.readyState !== 1 || Date.now() - heard >= 1000 * EVERY; }

  learn(true);
  listen();
  setInterval(tick, 1000);
  setInterval(function () {
    if (!quiet()) { return; }
    look();
    if (stream && stream.readyState !== 0) { stream.close(); listen(); }  // it does not come back by itself
  }, 1000 * EVERY);
  document.addEventListener("visibilitychange", function () {
    if (!document.hidden && quiet()) { look(); }
  });
}());
